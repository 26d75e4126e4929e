//! From a certificate's subject to a user's name: the rules of Kafka's `ssl.principal.mapping.rules`.
//!
//! Rules stand in one text, separated by commas; the first that fits names the user:
//! `RULE:pattern/replacement/`, with `L` or `U` behind it for lower or upper case, or `DEFAULT`, the subject
//! as it is. A slash that belongs to the pattern or the replacement is written `\/`. The pattern has to
//! fit the whole subject; `$1` in the replacement is its first group, and a group that it does not have
//! stays as it is written.
//!
//! Patterns are those of `regex-lite`: in linear time, so that no certificate can hold the door up, hence
//! without look-around and back-references, which Java has.

use regex_lite::{Captures, Regex};

/// Rules, in order.
#[derive(Debug)]
pub struct PrincipalMapper {
    rules: Vec<Rule>,
    text: String,
}

#[derive(Debug)]
enum Rule {
    Default,
    Replace {
        pattern: Regex,
        replacement: String,
        case: Case,
    },
}

#[derive(Debug, Clone, Copy)]
enum Case {
    AsIs,
    Lower,
    Upper,
}

/// Why rules cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RulesError {
    #[error(
        "principal mapping rules {rules:?}: no rule begins with {rest:?} (RULE:pattern/replacement/ with L or U behind it, or DEFAULT)"
    )]
    Syntax { rules: String, rest: String },
    #[error("principal mapping rules: the pattern {pattern:?} cannot be: {reason}")]
    Pattern { pattern: String, reason: String },
}

/// No rule fits a subject: whoever presents it is not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no principal mapping rule fits {subject:?} (rules: {rules:?})")]
pub struct NoRule {
    subject: String,
    rules: String,
}

impl PrincipalMapper {
    pub fn parse(text: &str) -> Result<PrincipalMapper, RulesError> {
        let mut rules = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let syntax = || RulesError::Syntax {
                rules: text.to_owned(),
                rest: rest.to_owned(),
            };
            let (rule, behind) = one(rest)?.ok_or_else(syntax)?;
            rules.push(rule);
            let behind = behind.trim_start();
            rest = match behind.strip_prefix(',') {
                // An empty rule is none.
                Some(next) => next.trim_start_matches([',', ' ']),
                None if behind.is_empty() => behind,
                None => return Err(syntax()),
            };
        }
        Ok(PrincipalMapper {
            rules,
            text: text.to_owned(),
        })
    }

    /// The user's name for a subject in the form of RFC 2253.
    pub fn name_of(&self, subject: &str) -> Result<String, NoRule> {
        let mut names = self.rules.iter().filter_map(|rule| rule.apply(subject));
        names.next().ok_or_else(|| NoRule {
            subject: subject.to_owned(),
            rules: self.text.clone(),
        })
    }
}

/// The first rule of a text, and what stands behind it.
fn one(text: &str) -> Result<Option<(Rule, &str)>, RulesError> {
    if let Some(behind) = text.strip_prefix("DEFAULT") {
        return Ok(Some((Rule::Default, behind)));
    }
    let parts = text.strip_prefix("RULE:").and_then(until_slash);
    let parts = parts.and_then(|(pattern, behind)| Some((pattern, until_slash(behind)?)));
    let Some((pattern, (replacement, behind))) = parts else {
        return Ok(None);
    };
    let (case, behind) = match (behind.strip_prefix('L'), behind.strip_prefix('U')) {
        (Some(behind), _) => (Case::Lower, behind),
        (_, Some(behind)) => (Case::Upper, behind),
        _ => (Case::AsIs, behind),
    };
    let whole = Regex::new(&format!("^(?:{pattern})$")).map_err(|error| RulesError::Pattern {
        pattern: pattern.to_owned(),
        reason: error.to_string(),
    })?;
    let rule = Rule::Replace {
        pattern: whole,
        replacement: replacement.to_owned(),
        case,
    };
    Ok(Some((rule, behind)))
}

/// What stands in front of the first slash without a backslash in front, and what behind it.
fn until_slash(text: &str) -> Option<(&str, &str)> {
    let mut escaped = false;
    let (at, _) = text.char_indices().find(|(_, sign)| {
        let here = *sign == '/' && !escaped;
        escaped = *sign == '\\' && !escaped;
        here
    })?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

impl Rule {
    fn apply(&self, subject: &str) -> Option<String> {
        match self {
            Rule::Default => Some(subject.to_owned()),
            Rule::Replace {
                pattern,
                replacement,
                case,
            } => {
                let name = expanded(replacement, &pattern.captures(subject)?);
                Some(match case {
                    Case::AsIs => name,
                    Case::Lower => name.to_lowercase(),
                    Case::Upper => name.to_uppercase(),
                })
            }
        }
    }
}

/// As Java expands it: a group's number is the longest that the pattern has.
fn expanded(replacement: &str, captures: &Captures<'_>) -> String {
    let mut out = String::new();
    let mut rest = replacement.chars();
    while let Some(sign) = rest.next() {
        match sign {
            '\\' => out.extend(rest.next()),
            '$' => match group_number(rest.as_str(), captures.len()) {
                Some((number, digits)) => {
                    out.push_str(captures.get(number).map_or("", |group| group.as_str()));
                    rest.by_ref().take(digits).for_each(drop);
                }
                None => out.push('$'),
            },
            sign => out.push(sign),
        }
    }
    out
}

/// A group's number at the beginning of a text, and its digits. `groups` counts the whole match.
fn group_number(text: &str, groups: usize) -> Option<(usize, usize)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let numbers = (1..=digits).rev().filter_map(|length| {
        let number: usize = text.get(..length)?.parse().ok()?;
        (number < groups).then_some((number, length))
    });
    numbers.into_iter().next()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A subject and its name.
    type Case = (&'static str, Option<&'static str>);

    /// What the SslPrincipalMapper of Apache Kafka 4.3.1 answers; `None`: no rule applies.
    const KAFKA: &[(&str, &[Case])] = &[
        ("DEFAULT", &[(DUKE, Some(DUKE)), ("", Some(""))]),
        ("", &[(DUKE, None)]),
        (
            "RULE:^CN=(.*?),OU=ServiceUsers.*$/$1/,RULE:^CN=(.*?),OU=(.*?),O=(.*?),C=(.*?)$/$1@$2/L,DEFAULT",
            &[
                (DUKE, Some("duke")),
                ("CN=Eve,OU=Ops,O=Org,C=US", Some("eve@ops")),
                ("CN=guest,OU=x", Some("CN=guest,OU=x")),
            ],
        ),
        (
            "RULE:^CN=(.*?),.*$/$1/U",
            &[
                (DUKE, Some("DUKE")),
                ("OU=JavaSoft,CN=Duke", None),
                ("CN=x\\,y,OU=z", Some("X\\")),
            ],
        ),
        (
            "RULE:^.*[Cc][Nn]=([a-zA-Z0-9.]*).*$/$1/L",
            &[("OU=JavaSoft,CN=Duke", Some("duke")), ("", None)],
        ),
        (
            "RULE:^CN=((\\\\, *|\\w)+)(,.*|$)/$1/,DEFAULT",
            &[
                ("CN=x\\,y,OU=z", Some("x\\,y")),
                ("CN=a/b,OU=z", Some("CN=a/b,OU=z")),
            ],
        ),
        (
            "RULE:^CN=(.*?),OU=Admins$/$1\\/x/,DEFAULT",
            &[("CN=a/b,OU=Admins", Some("a/b/x")), (DUKE, Some(DUKE))],
        ),
        (
            " RULE:^CN=(.*),.*$/$1$2/ , DEFAULT ",
            &[
                ("CN=guest,OU=x", Some("guest$2")),
                ("OU=JavaSoft,CN=Duke", Some("OU=JavaSoft,CN=Duke")),
            ],
        ),
        (
            "RULE:^CN=(.*),.*$/$10-\\$1/",
            &[("CN=guest,OU=x", Some("guest0-$1"))],
        ),
        ("DEFAULT,RULE:a/b/", &[(DUKE, Some(DUKE))]),
        (
            "RULE:a/b/L,,DEFAULT",
            &[(DUKE, Some(DUKE)), ("a", Some("b"))],
        ),
        (
            "RULE:a,b/c,d/,DEFAULT",
            &[("a,b", Some("c,d")), (DUKE, Some(DUKE))],
        ),
    ];
    const DUKE: &str = "CN=duke,OU=ServiceUsers,O=Org,C=US";

    #[test]
    fn subjects_are_mapped_as_kafka_maps_them() {
        for (rules, cases) in KAFKA {
            let mapper = PrincipalMapper::parse(rules).unwrap();
            for (subject, expected) in *cases {
                let name = mapper.name_of(subject).ok();
                assert_eq!(name.as_deref(), *expected, "{rules} {subject}");
            }
        }
    }

    #[test]
    fn rules_that_kafka_refuses_are_refused_with_their_place() {
        let refused = |rules: &str| PrincipalMapper::parse(rules).unwrap_err().to_string();
        assert!(refused("RULE:a/b").contains(r#"no rule begins with "RULE:a/b""#));
        assert!(refused("DEFAULT, rule:a/b/").contains(r#"begins with "rule:a/b/""#));
        assert!(refused("RULE:^CN=(.*?),.*/$1/X").contains("RULE:^CN"));
        assert!(refused("RULE:(/b/").contains(r#"the pattern "(" cannot be"#));
        assert!(refused("RULE:(a)\\1/b/").contains("cannot be"));
    }
}
