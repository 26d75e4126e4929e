//! From the tree of settings to the rooms' structs, with the place and the path of every error.
//!
//! Owns: one serde deserializer. Text from the environment takes the type that the struct asks for.
//! Besides decoding it can [record](Shape) which keys the structs have, so that the documented
//! default file can be held against the code.

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer,
    MapAccess, SeqAccess, Unexpected, VariantAccess, Visitor,
};

use super::ConfigError;
use super::tree::{Entry, Item, Origin, Table, Value, join, parse_value};

/// Which keys the decoded structs have, by dotted path (`[]` stands for any element of a list).
#[derive(Debug, Default)]
pub(super) struct Shape {
    /// Every struct that was met.
    pub structs: BTreeMap<String, &'static [&'static str]>,
    /// Tables whose keys are free.
    pub maps: Vec<String>,
}

/// Decodes a tree; `shape` is filled on the way.
pub(super) fn decode<T: DeserializeOwned>(
    tree: &Table,
    shape: &RefCell<Shape>,
) -> Result<T, ConfigError> {
    let item = Item {
        value: Value::Table(tree.clone()),
        origin: Origin::Default,
    };
    T::deserialize(Decoder {
        item: &item,
        path: String::new(),
        shape,
    })
}

struct Decoder<'a> {
    item: &'a Item,
    path: String,
    shape: &'a RefCell<Shape>,
}

impl<'a> Decoder<'a> {
    fn complaint(&self, error: ConfigError) -> ConfigError {
        error.at(&self.item.origin, &self.path)
    }

    fn unexpected(&self) -> Unexpected<'_> {
        match &self.item.value {
            Value::String(text) | Value::Text(text) => Unexpected::Str(text),
            Value::Integer(number) => i64::try_from(*number)
                .map_or(Unexpected::Other("a large number"), Unexpected::Signed),
            Value::Float(number) => Unexpected::Float(*number),
            Value::Boolean(value) => Unexpected::Bool(*value),
            Value::Datetime(_) => Unexpected::Other("a date"),
            Value::Array(_) => Unexpected::Seq,
            Value::Table(_) => Unexpected::Map,
        }
    }

    fn wrong_type<'de, V: Visitor<'de>>(&self, visitor: &V) -> ConfigError {
        self.complaint(ConfigError::invalid_type(self.unexpected(), visitor))
    }

    /// Text from outside a file, where the struct wants a list, a table or a number in TOML's writing.
    fn reparsed(&self, text: &str) -> Result<Item, ConfigError> {
        parse_value(text, &self.item.origin).map_err(|e| {
            self.complaint(ConfigError::value(format!(
                "{text:?} is not a TOML value: {e}"
            )))
        })
    }

    fn integer<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        let number = match &self.item.value {
            Value::Integer(number) => *number,
            Value::Text(text) => match text.trim().replace('_', "").parse() {
                Ok(number) => number,
                Err(_) => return Err(self.wrong_type(&visitor)),
            },
            _ => return Err(self.wrong_type(&visitor)),
        };
        let result = match (u64::try_from(number), i64::try_from(number)) {
            (Ok(unsigned), _) => visitor.visit_u64(unsigned),
            (_, Ok(signed)) => visitor.visit_i64(signed),
            _ => visitor.visit_i128(number),
        };
        result.map_err(|e: ConfigError| self.complaint(e))
    }

    fn float<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        let number = match &self.item.value {
            Value::Float(number) => *number,
            Value::Integer(number) => *number as f64,
            Value::Text(text) => match text.trim().parse() {
                Ok(number) => number,
                Err(_) => return Err(self.wrong_type(&visitor)),
            },
            _ => return Err(self.wrong_type(&visitor)),
        };
        visitor
            .visit_f64(number)
            .map_err(|e: ConfigError| self.complaint(e))
    }

    fn text<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        match &self.item.value {
            Value::String(text) | Value::Text(text) => visitor
                .visit_str(text)
                .map_err(|e: ConfigError| self.complaint(e)),
            _ => Err(self.wrong_type(&visitor)),
        }
    }

    fn table<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        match &self.item.value {
            Value::Table(table) => {
                let access = Keys {
                    entries: table.entries().iter(),
                    value: None,
                    path: &self.path,
                    shape: self.shape,
                };
                visitor
                    .visit_map(access)
                    .map_err(|e: ConfigError| self.complaint(e))
            }
            Value::Text(text) => {
                let item = self.reparsed(text)?;
                if matches!(item.value, Value::Text(_)) {
                    return Err(self.wrong_type(&visitor));
                }
                Decoder {
                    item: &item,
                    path: self.path,
                    shape: self.shape,
                }
                .table(visitor)
            }
            _ => Err(self.wrong_type(&visitor)),
        }
    }
}

macro_rules! delegate {
    ($to:ident: $($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
            self.$to(visitor)
        })*
    };
}

impl<'de> Deserializer<'de> for Decoder<'_> {
    type Error = ConfigError;

    delegate!(integer: deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128);
    delegate!(float: deserialize_f32 deserialize_f64);
    delegate!(text: deserialize_char deserialize_str deserialize_string deserialize_identifier
        deserialize_bytes deserialize_byte_buf);

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        match &self.item.value {
            Value::String(_) => self.text(visitor),
            Value::Integer(_) => self.integer(visitor),
            Value::Float(_) => self.float(visitor),
            Value::Boolean(_) => self.deserialize_bool(visitor),
            Value::Datetime(text) => visitor
                .visit_str(text)
                .map_err(|e: ConfigError| self.complaint(e)),
            Value::Array(_) => self.deserialize_seq(visitor),
            Value::Table(_) => self.table(visitor),
            Value::Text(text) => match parse_value(text, &self.item.origin) {
                Ok(item) => Decoder {
                    item: &item,
                    path: self.path,
                    shape: self.shape,
                }
                .deserialize_any(visitor),
                Err(_) => self.text(visitor),
            },
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        let value = match &self.item.value {
            Value::Boolean(value) => *value,
            Value::Text(text) if text == "true" => true,
            Value::Text(text) if text == "false" => false,
            _ => return Err(self.wrong_type(&visitor)),
        };
        visitor
            .visit_bool(value)
            .map_err(|e: ConfigError| self.complaint(e))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        match &self.item.value {
            Value::Array(items) => {
                let access = Elements {
                    items: items.iter(),
                    path: format!("{}[]", self.path),
                    shape: self.shape,
                };
                visitor
                    .visit_seq(access)
                    .map_err(|e: ConfigError| self.complaint(e))
            }
            Value::Text(text) => {
                let item = self.reparsed(text)?;
                Decoder {
                    item: &item,
                    path: self.path,
                    shape: self.shape,
                }
                .deserialize_seq(visitor)
            }
            _ => Err(self.wrong_type(&visitor)),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        self.shape.borrow_mut().maps.push(self.path.clone());
        self.table(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        self.shape
            .borrow_mut()
            .structs
            .insert(self.path.clone(), fields);
        self.table(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        match &self.item.value {
            Value::String(name) | Value::Text(name) => {
                let name: StrDeserializer<'_, ConfigError> = name.as_str().into_deserializer();
                visitor
                    .visit_enum(name)
                    .map_err(|e: ConfigError| self.complaint(e))
            }
            Value::Table(table) => match table.entries() {
                [entry] => {
                    let access = Variant {
                        entry,
                        path: &self.path,
                        shape: self.shape,
                    };
                    visitor
                        .visit_enum(access)
                        .map_err(|e: ConfigError| self.complaint(e))
                }
                _ => Err(self.complaint(ConfigError::value("expected exactly one key"))),
            },
            _ => Err(self.wrong_type(&visitor)),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        Err(self.wrong_type(&visitor))
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        Err(self.wrong_type(&visitor))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        visitor.visit_unit()
    }
}

struct Keys<'a> {
    entries: std::slice::Iter<'a, Entry>,
    value: Option<&'a Entry>,
    path: &'a str,
    shape: &'a RefCell<Shape>,
}

impl<'de> MapAccess<'de> for Keys<'_> {
    type Error = ConfigError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, ConfigError> {
        let Some(entry) = self.entries.next() else {
            return Ok(None);
        };
        self.value = Some(entry);
        let key: StrDeserializer<'_, ConfigError> = entry.key.as_str().into_deserializer();
        seed.deserialize(key)
            .map(Some)
            .map_err(|e| e.at_key(&entry.key_origin, self.path, &entry.key))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, ConfigError> {
        let Some(entry) = self.value.take() else {
            return Err(ConfigError::value("a value without its key"));
        };
        let path = join(self.path, &entry.key);
        seed.deserialize(Decoder {
            item: &entry.item,
            path: path.clone(),
            shape: self.shape,
        })
        .map_err(|e| e.at(&entry.item.origin, &path))
    }
}

struct Elements<'a> {
    items: std::slice::Iter<'a, Item>,
    path: String,
    shape: &'a RefCell<Shape>,
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = ConfigError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, ConfigError> {
        let Some(item) = self.items.next() else {
            return Ok(None);
        };
        seed.deserialize(Decoder {
            item,
            path: self.path.clone(),
            shape: self.shape,
        })
        .map(Some)
        .map_err(|e| e.at(&item.origin, &self.path))
    }
}

struct Variant<'a> {
    entry: &'a Entry,
    path: &'a str,
    shape: &'a RefCell<Shape>,
}

impl<'a, 'de> EnumAccess<'de> for Variant<'a> {
    type Error = ConfigError;
    type Variant = Decoder<'a>;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Decoder<'a>), ConfigError> {
        let name: StrDeserializer<'_, ConfigError> = self.entry.key.as_str().into_deserializer();
        let value = seed
            .deserialize(name)
            .map_err(|e| e.at_key(&self.entry.key_origin, self.path, &self.entry.key))?;
        let path = join(self.path, &self.entry.key);
        Ok((
            value,
            Decoder {
                item: &self.entry.item,
                path,
                shape: self.shape,
            },
        ))
    }
}

impl<'de> VariantAccess<'de> for Decoder<'_> {
    type Error = ConfigError;

    fn unit_variant(self) -> Result<(), ConfigError> {
        Err(self.complaint(ConfigError::value("this name takes no settings")))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(
        self,
        seed: T,
    ) -> Result<T::Value, ConfigError> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, ConfigError> {
        self.deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        self.deserialize_struct("", fields, visitor)
    }
}
