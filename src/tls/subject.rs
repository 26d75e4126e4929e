//! The subject of a certificate as text: RFC 2253, as Java's `X500Principal.getName()` writes it, so that
//! the names in Kafka's access rules and mapping rules are the same here.
//!
//! The most specific part stands first. Types have the names that RFC 2253 gives them, others are numbers
//! with the value's DER in hex behind a `#`. In values `,` `=` `+` `<` `>` `#` `;` `"` `\` are escaped, and
//! spaces at the ends.

use std::fmt::Write as _;

use x509_parser::asn1_rs::{Any, Class};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

const KEYWORDS: &[(&str, &str)] = &[
    ("2.5.4.3", "CN"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "STREET"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
];

const ESCAPED: &[char] = &[',', '=', '+', '<', '>', '#', ';', '"', '\\'];

/// UTF8String, PrintableString, T61String, IA5String, GeneralString, BMPString.
const TEXT_TAGS: &[u32] = &[12, 19, 20, 22, 27, 30];

/// Of a certificate in DER; `None` where it cannot be read.
pub(super) fn of_certificate(der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(of_name(certificate.subject()))
}

fn of_name(name: &X509Name<'_>) -> String {
    let parts: Vec<Vec<String>> = name
        .iter_rdn()
        .map(|part| part.iter().map(attribute).collect())
        .collect();
    let parts: Vec<String> = parts.iter().rev().map(|part| part.join("+")).collect();
    parts.join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let oid = attribute.attr_type().to_id_string();
    let keyword = KEYWORDS.iter().find(|(known, _)| *known == oid);
    let value = attribute.attr_value();
    let text = keyword.and_then(|_| text_of(value));
    let name = keyword.map_or(oid.as_str(), |(_, keyword)| keyword);
    match text {
        Some(text) => format!("{name}={}", escaped(text)),
        None => format!("{name}=#{}", der_hex(value)),
    }
}

fn text_of<'v>(value: &'v Any<'_>) -> Option<&'v str> {
    let is_text = value.header.class() == Class::Universal && TEXT_TAGS.contains(&value.tag().0);
    let bytes = is_text.then_some(value.data)?;
    std::str::from_utf8(bytes).ok()
}

fn escaped(text: &str) -> String {
    let is_space = |sign: char| sign == ' ' || sign == '\r';
    let first = text.len() - text.trim_start_matches(is_space).len();
    let last = text.trim_end_matches(is_space).len();
    let mut out = String::with_capacity(text.len());
    for (at, sign) in text.char_indices() {
        if sign == '\0' {
            out.push_str("\\00");
            continue;
        }
        let at_an_end = at < first || at >= last;
        if ESCAPED.contains(&sign) || (at_an_end && is_space(sign)) {
            out.push('\\');
        }
        out.push(sign);
    }
    out
}

fn der_hex(value: &Any<'_>) -> String {
    let class = u32::from(value.header.class() as u8) << 6;
    let constructed = u32::from(value.header.is_constructed()) << 5;
    // Tags of DirectoryString and its relatives have one byte.
    let tag = class | constructed | (value.tag().0 & 0x1f);
    let length = value.data.len();
    let mut out = format!("{tag:02x}");
    if length < 0x80 {
        push_hex(&mut out, &[length as u8]);
    } else {
        let bytes = length.to_be_bytes();
        let zeroes = bytes.iter().take_while(|byte| **byte == 0).count();
        let bytes = bytes.get(zeroes..).unwrap_or_default();
        push_hex(&mut out, &[0x80 | bytes.len() as u8]);
        push_hex(&mut out, bytes);
    }
    push_hex(&mut out, value.data);
    out
}

fn push_hex(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing into a String cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Encoded names, and what `X500Principal.getName()` of OpenJDK 17 makes of them.
    const JAVA: &[(&str, &str)] = &[
        (
            "3041310b3009060355040613025553310c300a060355040a13034f726731153013060355040b130c536572766963655573657273310d300b0603550403130464756b65",
            "CN=duke,OU=ServiceUsers,O=Org,C=US",
        ),
        (
            "302a310a3008060355040a130178311c301a06035504030c13612c622b633d64236522665c673c683e693b6a",
            r#"CN=a\,b\+c\=d\#e\"f\\g\<h\>i\;j,O=x"#,
        ),
        (
            "301e310b3009060355040a0c022378310f300d06035504031306206c65616420",
            r"CN=\ lead\ ,O=\#x",
        ),
        (
            "3022310a300806035504031301783114301206092a864886f70d01090116056140622e63",
            "1.2.840.113549.1.9.1=#16056140622e63,CN=x",
        ),
        (
            "3022310a3008060355040a13017a3114300806035504031301783008060355040b130179",
            "CN=x+OU=y,O=z",
        ),
        (
            "308196310a3008060355040413016e310a3008060355042a130167310a30080603550405130135310a3008060355040c130174310a3008060355040713016c310b3009060355040813027374310a300806035504091301733111300f060a0992268993f22c64010113017531133011060a0992268993f22c6401191603636f6d31173015060a0992268993f22c64011916076578616d706c65",
            "DC=example,DC=com,UID=u,STREET=s,ST=st,L=l,2.5.4.12=#130174,2.5.4.5=#130135,2.5.4.42=#130167,2.5.4.4=#13016e",
        ),
        ("30143112301006035504030c096772c3bc6e20e697a5", "CN=grün 日"),
        (
            "302831173015060355040a0c0e696e2a6e65725f2f3a3f40277e21310d300b0603550403130461202062",
            "CN=a  b,O=in*ner_/:?@'~!",
        ),
        ("300b3109300706035504031300", "CN="),
    ];

    fn bytes(hex: &str) -> Vec<u8> {
        let pairs = hex.as_bytes().chunks(2);
        let pairs = pairs.map(|pair| std::str::from_utf8(pair).unwrap());
        pairs
            .map(|pair| u8::from_str_radix(pair, 16).unwrap())
            .collect()
    }

    #[test]
    fn names_are_written_as_java_writes_them() {
        for (der, expected) in JAVA {
            let der = bytes(der);
            let (_, name) = X509Name::from_der(&der).unwrap();
            assert_eq!(of_name(&name), *expected);
        }
    }

    #[test]
    fn a_long_value_of_an_unknown_type_has_its_length_in_two_bytes() {
        let value = "x".repeat(200);
        let total = 200 + 3;
        // SEQUENCE, SET, SEQUENCE, OID of 11 bytes, then the value.
        let der = [
            &[
                0x30,
                0x81,
                (total + 17) as u8,
                0x31,
                0x81,
                (total + 14) as u8,
                0x30,
                0x81,
            ][..],
            &[(total + 11) as u8],
            &bytes("06092a864886f70d010901"),
            &[0x0c, 0x81, 200],
            value.as_bytes(),
        ]
        .concat();
        let (_, name) = X509Name::from_der(&der).unwrap();
        let expected = format!("1.2.840.113549.1.9.1=#0c81c8{}", "78".repeat(200));
        assert_eq!(of_name(&name), expected);
    }

    #[test]
    fn what_is_no_certificate_has_no_subject() {
        assert_eq!(of_certificate(b""), None);
        assert_eq!(of_certificate(&bytes("300b3109300706035504031300")), None);
    }
}
