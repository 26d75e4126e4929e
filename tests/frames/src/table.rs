//! The node's table of messages, read a second time: what its macro turns into a codec there becomes a
//! composer here, for every line, in every version.
//!
//! Every file of the table has to be named once below; no run begins if one was forgotten.

use std::collections::HashMap;
use std::sync::OnceLock;

use holdfast::kafka::protocol::ApiKey;

use crate::compose::{Compose, Composer, Layout, Structure};

pub type Composing = fn(&mut Composer<'_>, Layout);

macro_rules! is_tagged {
    () => {
        false
    };
    ($tag:literal) => {
        true
    };
}

macro_rules! messages {
    ($(
        $(#[$meta:meta])*
        $name:ident {
            $(
                $(#[$field_meta:meta])*
                $field:ident : $ty:ty => $versions:expr
                $(, null $null:expr)? $(, tag $tag:literal)? $(, default $default:expr)?;
            )*
        }
    )*) => {
        pub(super) const TABLE: &[(&str, super::Composing)] = &[
            $( (stringify!($name), |c, layout| <$name as super::Compose>::compose(c, "", "", layout)), )*
        ];
        $(
            pub struct $name;

            impl super::Structure for $name {}

            impl super::Compose for $name {
                fn compose(
                    c: &mut super::Composer<'_>,
                    _owner: &'static str,
                    _field: &'static str,
                    layout: super::Layout,
                ) {
                    $(
                        if !is_tagged!($($tag)?) && ($versions).contains(&layout.version) {
                            c.field::<$ty>(stringify!($name), stringify!($field), layout);
                        }
                    )*
                    if layout.flexible {
                        c.begin_tags();
                        $( $(
                            if ($versions).contains(&layout.version) {
                                c.tag::<$ty>($tag, stringify!($name), stringify!($field), layout);
                            }
                        )? )*
                        c.end_tags();
                    }
                }
            }
        )*
    };
}

macro_rules! files {
    ($($name:ident $path:literal,)*) => {
        $(
            #[path = $path]
            #[allow(unused_imports, dead_code)]
            mod $name;
        )*
        const TABLES: &[&[(&str, Composing)]] = &[$( $name::TABLE, )*];
    };
}

files! {
    admin "../../../src/kafka/protocol/messages/admin.rs",
    broker "../../../src/kafka/protocol/messages/broker.rs",
    cluster "../../../src/kafka/protocol/messages/cluster.rs",
    config "../../../src/kafka/protocol/messages/config.rs",
    features "../../../src/kafka/protocol/messages/features.rs",
    group "../../../src/kafka/protocol/messages/group.rs",
    log "../../../src/kafka/protocol/messages/log.rs",
    quota "../../../src/kafka/protocol/messages/quota.rs",
    security "../../../src/kafka/protocol/messages/security.rs",
    transaction "../../../src/kafka/protocol/messages/transaction.rs",
}

/// What composes the requests of this API; `None` if its file is not named above.
pub fn composing(api: ApiKey) -> Option<Composing> {
    static BY_NAME: OnceLock<HashMap<&str, Composing>> = OnceLock::new();
    let all = || TABLES.iter().flat_map(|table| table.iter().copied());
    let requests = || all().filter_map(|(name, how)| Some((name.strip_suffix("Request")?, how)));
    BY_NAME
        .get_or_init(|| requests().collect())
        .get(api.name())
        .copied()
}
