//! Topic names and topic filters: what is valid, and what matches what (MQTT 3.1.1 and 5, 4.7).
//!
//! Validation is ours and comes before anything of rumqttd sees the text: its router accepts
//! `a/#/b` and stops over a topic that begins with a non-ASCII character.

use super::config::MqttConfig;

/// Prefix of a shared subscription (MQTT 5, 4.8.2; accepted from 3.1.1 clients too).
const SHARE_PREFIX: &str = "$share/";

/// Why a topic name or a topic filter was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TopicError {
    #[error("it is empty")]
    Empty,
    #[error("it is not valid UTF-8")]
    NotUtf8,
    #[error("it contains U+0000")]
    Nul,
    #[error("it is longer than mqtt.topic_bytes_max")]
    TooLong,
    #[error("it has more levels than mqtt.topic_levels_max")]
    TooManyLevels,
    #[error("a topic name contains no wildcard")]
    WildcardInName,
    #[error("'+' stands alone in its level, '#' alone in the last one")]
    MisplacedWildcard,
    #[error("topics that begin with '$' belong to the server, and this one offers none")]
    ServerTopic,
    #[error("a shared subscription is $share/<name>/<filter>, the name without wildcards")]
    MalformedShare,
}

/// Limits on the text of topics.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TopicLimits {
    pub(crate) bytes_max: usize,
    pub(crate) levels_max: usize,
}

impl From<&MqttConfig> for TopicLimits {
    fn from(config: &MqttConfig) -> TopicLimits {
        TopicLimits {
            bytes_max: config.topic_bytes_max,
            levels_max: config.topic_levels_max,
        }
    }
}

fn check_text(text: &str, limits: TopicLimits) -> Result<(), TopicError> {
    if text.is_empty() {
        return Err(TopicError::Empty);
    }
    if text.len() > limits.bytes_max {
        return Err(TopicError::TooLong);
    }
    if text.contains('\0') {
        return Err(TopicError::Nul);
    }
    if text.split('/').count() > limits.levels_max {
        return Err(TopicError::TooManyLevels);
    }
    if text.starts_with('$') {
        return Err(TopicError::ServerTopic);
    }
    Ok(())
}

/// Checks a topic name as it came in a PUBLISH or a will.
pub(crate) fn check_name(bytes: &[u8], limits: TopicLimits) -> Result<&str, TopicError> {
    let name = std::str::from_utf8(bytes).map_err(|_| TopicError::NotUtf8)?;
    check_text(name, limits)?;
    if name.contains(['+', '#']) {
        return Err(TopicError::WildcardInName);
    }
    Ok(name)
}

/// A valid topic filter.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct TopicFilter(String);

impl TopicFilter {
    pub(crate) fn parse(text: &str, limits: TopicLimits) -> Result<TopicFilter, TopicError> {
        check_text(text, limits)?;
        let mut levels = text.split('/').peekable();
        while let Some(level) = levels.next() {
            let last = levels.peek().is_none();
            let misplaced = match level {
                "+" => false,
                "#" => !last,
                other => other.contains(['+', '#']),
            };
            if misplaced {
                return Err(TopicError::MisplacedWildcard);
            }
        }
        Ok(TopicFilter(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn has_wildcards(&self) -> bool {
        self.0.contains(['+', '#'])
    }

    /// How every name begins that matches. `a/#` matches `a` itself.
    pub(crate) fn literal_prefix(&self) -> &str {
        let Some((literal, rest)) = self
            .0
            .find(['+', '#'])
            .and_then(|at| self.0.split_at_checked(at))
        else {
            return &self.0;
        };
        match (rest, literal.strip_suffix('/')) {
            ("#", Some(parent)) if !parent.is_empty() => parent,
            _ => literal,
        }
    }

    /// Whether some topic name matches that begins with `start`.
    pub(crate) fn matches_some_name_with(&self, start: &str) -> bool {
        let mut levels = self.0.split('/');
        let mut parts = start.split('/').peekable();
        while let Some(part) = parts.next() {
            let is_last = parts.peek().is_none();
            match levels.next() {
                Some("#") => return true,
                Some("+") => {}
                Some(level) if is_last && level.starts_with(part) => {}
                Some(level) if level == part => {}
                _ => return false,
            }
        }
        true
    }

    /// Whether this filter matches a valid topic name.
    pub(crate) fn matches(&self, name: &str) -> bool {
        let mut names = name.split('/');
        for level in self.0.split('/') {
            if level == "#" {
                return true;
            }
            match names.next() {
                Some(name) if level == "+" || level == name => {}
                _ => return false,
            }
        }
        names.next().is_none()
    }
}

/// What a client subscribes to: a filter, perhaps shared with a group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct SubscriptionKey {
    pub(crate) group: Option<String>,
    pub(crate) filter: TopicFilter,
}

impl SubscriptionKey {
    pub(crate) fn parse(text: &str, limits: TopicLimits) -> Result<SubscriptionKey, TopicError> {
        let Some(shared) = text.strip_prefix(SHARE_PREFIX) else {
            return Ok(SubscriptionKey {
                group: None,
                filter: TopicFilter::parse(text, limits)?,
            });
        };
        let (group, filter) = shared.split_once('/').ok_or(TopicError::MalformedShare)?;
        if group.is_empty() || group.contains(['+', '#', '\0']) || group.len() > limits.bytes_max {
            return Err(TopicError::MalformedShare);
        }
        Ok(SubscriptionKey {
            group: Some(group.to_owned()),
            filter: TopicFilter::parse(filter, limits)?,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )]
    use proptest::prelude::*;

    use super::*;

    pub(crate) const LIMITS: TopicLimits = TopicLimits {
        bytes_max: 64,
        levels_max: 8,
    };

    fn filter(text: &str) -> TopicFilter {
        TopicFilter::parse(text, LIMITS).unwrap()
    }

    #[test]
    fn filters_of_the_specification_match_as_it_says() {
        for (text, name, expected) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            (
                "sport/tennis/player1/#",
                "sport/tennis/player1/score/wimbledon",
                true,
            ),
            ("#", "a/b", true),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("a/b", "a/b/c", false),
            ("ü/+", "ü/1", true),
        ] {
            assert_eq!(
                filter(text).matches(name),
                expected,
                "{text} against {name}"
            );
        }
    }

    #[test]
    fn malformed_filters_and_names_are_refused() {
        for text in ["a/#/b", "a#", "sport+", "+a/b", "a/b+/c", "##"] {
            assert_eq!(
                TopicFilter::parse(text, LIMITS),
                Err(TopicError::MisplacedWildcard),
                "{text}"
            );
        }
        assert_eq!(TopicFilter::parse("", LIMITS), Err(TopicError::Empty));
        assert_eq!(
            TopicFilter::parse("$SYS/#", LIMITS),
            Err(TopicError::ServerTopic)
        );
        assert_eq!(check_name(b"t/+", LIMITS), Err(TopicError::WildcardInName));
        assert_eq!(check_name(b"t/\0", LIMITS), Err(TopicError::Nul));
        assert_eq!(check_name(b"t/\xff", LIMITS), Err(TopicError::NotUtf8));
        assert_eq!(check_name(&[b'a'; 65], LIMITS), Err(TopicError::TooLong));
        assert_eq!(
            check_name(b"1/2/3/4/5/6/7/8/9", LIMITS),
            Err(TopicError::TooManyLevels)
        );
        assert_eq!(check_name("ü/ß".as_bytes(), LIMITS), Ok("ü/ß"));
    }

    #[test]
    fn shared_subscriptions_name_a_group_and_a_filter() {
        let key = SubscriptionKey::parse("$share/g/a/+", LIMITS).unwrap();
        assert_eq!(
            (key.group.as_deref(), key.filter.as_str()),
            (Some("g"), "a/+")
        );
        for text in ["$share/g", "$share//a", "$share/g+/a", "$share/"] {
            assert_eq!(
                SubscriptionKey::parse(text, LIMITS),
                Err(TopicError::MalformedShare),
                "{text}"
            );
        }
        assert_eq!(
            SubscriptionKey::parse("$share/g/", LIMITS),
            Err(TopicError::Empty)
        );
    }

    /// The definition written as recursion over level lists, independent of the iterator form.
    fn model(filter: &[&str], name: &[&str]) -> bool {
        match (filter.split_first(), name.split_first()) {
            (Some((&"#", _)), _) => true,
            (Some((&"+", f)), Some((_, n))) => model(f, n),
            (Some((level, f)), Some((part, n))) => level == part && model(f, n),
            (None, None) => true,
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_the_model(
            filter_levels in prop::collection::vec("[ab+]|", 1..6),
            tail in any::<bool>(),
            name_levels in prop::collection::vec("[ab]|", 1..6),
        ) {
            let mut levels: Vec<&str> = filter_levels.iter().map(String::as_str).collect();
            if tail {
                levels.push("#");
            }
            let text = levels.join("/");
            let names: Vec<&str> = name_levels.iter().map(String::as_str).collect();
            let name = names.join("/");
            prop_assume!(!text.is_empty() && !name.is_empty());
            prop_assert_eq!(filter(&text).matches(&name), model(&levels, &names));
        }
    }
}
