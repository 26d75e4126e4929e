//! The macros behind the two tables of the codec: messages (field by field) and APIs.
//!
//! A line of the message table reads
//!
//! ```text
//! name: Type => versions, null versions, tag number, default value;
//! ```
//!
//! where everything after the versions is optional: without `null`, an `Option` may be null wherever
//! the field exists; without `default`, the type's own default stands in for a field that a version
//! lacks. A tagged field is written only where it differs from its default (KIP-482).

/// `expr` if there is one, else the type's default.
macro_rules! or_default {
    () => {
        Default::default()
    };
    ($value:expr) => {
        $value
    };
}

/// Whether a tag was given.
macro_rules! is_tagged {
    () => {
        false
    };
    ($tag:literal) => {
        true
    };
}

/// Structures of the wire format. See the module's header for a line's meaning.
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
    )*) => { $(
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            $( $(#[$field_meta])* pub $field: $ty, )*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: or_default!($($default)?), )* }
            }
        }

        impl $crate::kafka::protocol::wire::Structure for $name {}

        impl $crate::kafka::protocol::wire::Wire for $name {
            fn read(
                r: &mut $crate::kafka::protocol::wire::Reader,
                layout: $crate::kafka::protocol::wire::Layout,
            ) -> Result<Self, $crate::kafka::protocol::wire::DecodeError> {
                use $crate::kafka::protocol::wire::Wire;
                let version = layout.version;
                let mut out = Self::default();
                $(
                    if !is_tagged!($($tag)?) && ($versions).contains(&version) {
                        out.$field = Wire::read(r, layout)?;
                        $(
                            if !($null).contains(&version) && out.$field.is_none() {
                                let field = stringify!($field);
                                return Err($crate::kafka::protocol::wire::DecodeError::Null { field, version });
                            }
                        )?
                    }
                )*
                if layout.flexible {
                    r.tagged(|tag, _body| match tag {
                        $( $(
                            $tag if ($versions).contains(&version) => {
                                out.$field = Wire::read(_body, layout)?;
                                Ok(true)
                            }
                        )? )*
                        _ => Ok(false),
                    })?;
                }
                Ok(out)
            }

            fn write(
                &self,
                w: &mut $crate::kafka::protocol::wire::Writer,
                layout: $crate::kafka::protocol::wire::Layout,
            ) {
                use $crate::kafka::protocol::wire::Wire;
                let version = layout.version;
                $(
                    if !is_tagged!($($tag)?) && ($versions).contains(&version) {
                        $(
                            if !($null).contains(&version) && self.$field.is_none() {
                                let field = stringify!($field);
                                w.fail($crate::kafka::protocol::wire::EncodeError::Null { field, version });
                            }
                        )?
                        w.begin_field(stringify!($field));
                        Wire::write(&self.$field, w, layout);
                    }
                )*
                if layout.flexible {
                    let _unset = Self::default();
                    let mut _count = 0;
                    $( $(
                        _count += u32::from(
                            is_tagged!($tag) && ($versions).contains(&version) && self.$field != _unset.$field,
                        );
                    )? )*
                    w.tag_count(_count);
                    $( $(
                        if ($versions).contains(&version) && self.$field != _unset.$field {
                            w.tag($tag, &self.$field, layout);
                        }
                    )? )*
                }
            }
        }

        #[cfg(test)]
        impl $crate::kafka::protocol::arbitrary::Arbitrary for $name {
            fn arbitrary(
                rng: &mut $crate::kafka::protocol::arbitrary::Rng,
                version: i16,
            ) -> Self {
                let mut out = Self::default();
                $(
                    if ($versions).contains(&version) {
                        out.$field = $crate::kafka::protocol::arbitrary::Arbitrary::arbitrary(rng, version);
                        $(
                            if !($null).contains(&version) {
                                out.$field.get_or_insert_default();
                            }
                        )?
                    }
                )*
                out
            }
        }
    )* };
}

/// The APIs this door serves. One line each:
/// `Name = key: serve versions, advertise versions, flexible from version, Request => Response;`
macro_rules! apis {
    ($(
        $(#[$meta:meta])*
        $name:ident = $key:literal: serve $serve:expr, advertise $advertise:expr,
        flexible $flexible:literal, $request:ident => $response:ident;
    )*) => {
        /// An API of the protocol.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        pub enum ApiKey { $( $(#[$meta])* $name = $key, )* }

        impl ApiKey {
            /// Everything that ApiVersions lists, by key.
            pub const ALL: &'static [ApiKey] = &[$( ApiKey::$name, )*];

            pub fn from_code(code: i16) -> Option<ApiKey> {
                match code {
                    $( $key => Some(ApiKey::$name), )*
                    _ => None,
                }
            }

            pub fn code(self) -> i16 {
                match self { $( ApiKey::$name => $key, )* }
            }

            pub fn name(self) -> &'static str {
                match self { $( ApiKey::$name => stringify!($name), )* }
            }

            /// Versions that are decoded and answered.
            pub fn served(self) -> std::ops::RangeInclusive<i16> {
                match self { $( ApiKey::$name => $serve, )* }
            }

            /// Versions that ApiVersions names.
            pub fn advertised(self) -> std::ops::RangeInclusive<i16> {
                match self { $( ApiKey::$name => $advertise, )* }
            }

            /// First version with compact lengths and tagged fields, in both directions.
            pub fn flexible_from(self) -> i16 {
                match self { $( ApiKey::$name => $flexible, )* }
            }
        }

        /// A request's body.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Request { $( $name($request), )* }

        /// A response's body.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Response { $( $name($response), )* }

        impl Request {
            pub fn api(&self) -> ApiKey {
                match self { $( Request::$name(_) => ApiKey::$name, )* }
            }

            pub(super) fn read_body(api: ApiKey, r: &mut Reader, layout: Layout) -> Result<Request, DecodeError> {
                match api { $( ApiKey::$name => Ok(Request::$name(Wire::read(r, layout)?)), )* }
            }

            pub(super) fn write_body(&self, w: &mut Writer, layout: Layout) {
                match self { $( Request::$name(body) => body.write(w, layout), )* }
            }
        }

        impl Response {
            pub fn api(&self) -> ApiKey {
                match self { $( Response::$name(_) => ApiKey::$name, )* }
            }

            pub(super) fn read_body(api: ApiKey, r: &mut Reader, layout: Layout) -> Result<Response, DecodeError> {
                match api { $( ApiKey::$name => Ok(Response::$name(Wire::read(r, layout)?)), )* }
            }

            pub(super) fn write_body(&self, w: &mut Writer, layout: Layout) {
                match self { $( Response::$name(body) => body.write(w, layout), )* }
            }
        }

        $(
            impl From<$request> for Request {
                fn from(body: $request) -> Request { Request::$name(body) }
            }
            impl From<$response> for Response {
                fn from(body: $response) -> Response { Response::$name(body) }
            }
            impl $crate::kafka::protocol::Call for $request {
                const API: ApiKey = ApiKey::$name;
                type Response = $response;
                fn response(response: Response) -> Option<$response> {
                    match response {
                        Response::$name(body) => Some(body),
                        _ => None,
                    }
                }
            }
        )*

        #[cfg(test)]
        pub(super) fn arbitrary_pair(
            api: ApiKey,
            rng: &mut $crate::kafka::protocol::arbitrary::Rng,
            version: i16,
        ) -> (Request, Response) {
            use $crate::kafka::protocol::arbitrary::Arbitrary;
            match api { $(
                ApiKey::$name => (
                    Request::$name(Arbitrary::arbitrary(rng, version)),
                    Response::$name(Arbitrary::arbitrary(rng, version)),
                ),
            )* }
        }

        #[cfg(test)]
        pub(super) fn default_pair(api: ApiKey) -> (Request, Response) {
            match api { $(
                ApiKey::$name => (Request::$name(Default::default()), Response::$name(Default::default())),
            )* }
        }
    };
}
