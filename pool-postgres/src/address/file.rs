//! Options in a configuration file: a URL, or a table of options by name, with `url` for what it begins with.
//!
//! ```toml
//! [database]
//! url = "postgresql://app@db.example/shop"
//! password = "secret"
//! pool_size = 10
//! ```

use std::fmt;

use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::EngineConfig;
use super::keys::apply;
use crate::error::Error;

impl<'de> Deserialize<'de> for EngineConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Options)
    }
}

struct Options;

impl<'de> Visitor<'de> for Options {
    type Value = EngineConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a URL, or options by name")
    }

    fn visit_str<E: serde::de::Error>(self, url: &str) -> Result<EngineConfig, E> {
        url.parse().map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<EngineConfig, A::Error> {
        let mut url = None;
        let mut pairs: Vec<(String, String)> = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            let Text(value) = map.next_value()?;
            match (&*key, value) {
                ("url", value) => url = value,
                (_, Some(value)) => pairs.push((key, value)),
                (_, None) => {}
            }
        }
        let read = || -> Result<EngineConfig, Error> {
            let mut options = match url {
                Some(url) => url.parse()?,
                None => EngineConfig::default(),
            };
            apply(&mut options, pairs)?;
            Ok(options)
        };
        read().map_err(A::Error::custom)
    }
}

/// A value as it would stand in a URL; `None` for one that is there and empty (`null`).
struct Text(Option<String>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Value)
    }
}

struct Value;

impl<'de> Visitor<'de> for Value {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number, a truth value, or a list of them")
    }

    fn visit_str<E>(self, text: &str) -> Result<Text, E> {
        Ok(Text(Some(text.to_owned())))
    }

    fn visit_bool<E>(self, on: bool) -> Result<Text, E> {
        Ok(Text(Some(on.to_string())))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Text, E> {
        Ok(Text(Some(number.to_string())))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Text, E> {
        Ok(Text(Some(number.to_string())))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Text, E> {
        Ok(Text(Some(number.to_string())))
    }

    fn visit_unit<E>(self) -> Result<Text, E> {
        Ok(Text(None))
    }

    fn visit_none<E>(self) -> Result<Text, E> {
        Ok(Text(None))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Text, D::Error> {
        deserializer.deserialize_any(Value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Text, A::Error> {
        let mut parts = Vec::new();
        while let Some(Text(part)) = list.next_element()? {
            parts.push(part.unwrap_or_default());
        }
        Ok(Text(Some(parts.join(","))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_the_same_as_a_url() {
        let url: EngineConfig =
            "postgresql://u:p@h1:1,h2:2/db?pool_size=7&pool_timeout=0.5&pool_pre_ping=1"
                .parse()
                .expect("a good URL");
        let table = r#"
            user = "u"
            password = "p"
            dbname = "db"
            host = ["h1", "h2"]
            port = [1, 2]
            pool_size = 7
            pool_timeout = 0.5
            pool_pre_ping = true
        "#;
        let read: EngineConfig = toml::from_str(table).expect("a good file");
        assert_eq!(read, url);
        let table = r#"
            password = "p"
            pool_size = 7
            url = "postgresql://u@h1:1,h2:2/db?pool_size=3&pool_timeout=0.5"
            pool_pre_ping = true
        "#;
        let read: EngineConfig = toml::from_str(table).expect("a good file");
        assert_eq!(read, url, "options override the URL wherever they stand");
        let json = serde_json::json!(url.render_with_password());
        assert_eq!(
            serde_json::from_value::<EngineConfig>(json).expect("a URL"),
            url
        );
        let json = serde_json::json!({"url": "postgresql://h", "password": null});
        assert_eq!(
            serde_json::from_value::<EngineConfig>(json).expect("good options"),
            "postgresql://h".parse().expect("a good URL")
        );
    }

    #[test]
    fn a_mistake_in_a_file_is_named_and_no_secret_shown() {
        for (json, part) in [
            (serde_json::json!({"pool_szie": 5}), "pool_size"),
            (serde_json::json!({"port": 99999}), "65535"),
            (serde_json::json!({"sslmode": true}), "verify-full"),
            (
                serde_json::json!({"url": "postgresql://u:hu/sh@h/db"}),
                "%2F",
            ),
            (serde_json::json!(7), "a URL"),
        ] {
            let error = serde_json::from_value::<EngineConfig>(json).expect_err("a mistake");
            let message = error.to_string();
            assert!(message.contains(part), "{message}");
            assert!(!message.contains("sh@"), "{message}");
        }
    }
}
