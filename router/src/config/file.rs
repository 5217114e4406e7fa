//! A database's settings in a configuration file: by the names of the variables, and nodes as URLs or tables.

use std::fmt;

use serde::de::{Error as _, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer};

use super::DatabaseConfig;
use crate::node_config::NodeConfig;
use pool_postgres::EngineConfig;

impl<'de> Deserialize<'de> for DatabaseConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Settings)
    }
}

struct Settings;

impl<'de> Visitor<'de> for Settings {
    type Value = DatabaseConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of a database's settings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<DatabaseConfig, A::Error> {
        let mut config = DatabaseConfig::default();
        while let Some(key) = map.next_key::<String>()? {
            match &*key {
                "primary" | "url" => config.primary = map.next_value()?,
                "replicas" | "replica_urls" => config.replicas = map.next_value()?,
                "nodes" | "node_urls" => config.nodes = map.next_value()?,
                _ => {
                    if let Some(Text(value)) = map.next_value()? {
                        let taken = config.set(&key, &value);
                        taken.map_err(|mistake| {
                            A::Error::custom(format_args!("{key}: {}", mistake.cause(&key)))
                        })?;
                    }
                }
            }
        }
        if config.primary.is_none() && config.nodes.is_empty() {
            return Err(A::Error::custom(
                "there is no primary: give its URL as primary, or the URLs of all nodes as nodes",
            ));
        }
        Ok(config)
    }
}

impl<'de> Deserialize<'de> for NodeConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Node)
    }
}

struct Node;

impl<'de> Visitor<'de> for Node {
    type Value = NodeConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a node's URL, or a table of its options")
    }

    fn visit_str<E: serde::de::Error>(self, url: &str) -> Result<NodeConfig, E> {
        let address: EngineConfig = url.parse().map_err(E::custom)?;
        Ok(address.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<NodeConfig, A::Error> {
        let (mut weight, mut zone) = (None, None);
        let options = OfTheEngine {
            map,
            weight: &mut weight,
            zone: &mut zone,
        };
        let address = EngineConfig::deserialize(MapAccessDeserializer::new(options))?;
        let mut node = NodeConfig::from(address);
        if let Some(zone) = zone {
            node = node.zone(zone);
        }
        Ok(match weight {
            Some(weight) => node.weight(weight),
            None => node,
        })
    }
}

/// A node's table as its engine sees it: without the weight and the zone, which are kept.
struct OfTheEngine<'a, A> {
    map: A,
    weight: &'a mut Option<u32>,
    zone: &'a mut Option<String>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for OfTheEngine<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: serde::de::DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        use serde::de::IntoDeserializer as _;
        while let Some(key) = self.map.next_key::<String>()? {
            match &*key {
                "weight" => *self.weight = Some(self.map.next_value()?),
                "zone" => *self.zone = Some(self.map.next_value()?),
                _ => return seed.deserialize(key.into_deserializer()).map(Some),
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: serde::de::DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

/// A value as it would stand in a variable.
struct Text(String);

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
        Ok(Text(text.to_owned()))
    }

    fn visit_bool<E>(self, on: bool) -> Result<Text, E> {
        Ok(Text(on.to_string()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Text, E> {
        Ok(Text(number.to_string()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Text, E> {
        Ok(Text(number.to_string()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Text, E> {
        Ok(Text(number.to_string()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Text, A::Error> {
        let mut parts = Vec::new();
        while let Some(Text(part)) = list.next_element()? {
            parts.push(part);
        }
        Ok(Text(parts.join(",")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_the_same_as_variables_and_more_of_each_node() {
        let text = r#"
            primary = "postgresql://app@db1/shop"
            replicas = [
                "postgresql://app@db2/shop",
                { url = "postgresql://app@db3/shop", pool_size = 20, weight = 2, zone = "south" },
            ]
            zone = "north"
            password = "hush"
            pool_pre_ping = true
            max_staleness = 2.5
            min_replicas = 1
        "#;
        let config: DatabaseConfig = toml::from_str(text).expect("a good file");
        let shown = format!("{config:?}");
        assert!(
            shown.contains("db3/shop?pool_size=20)), weight: 2, zone: Some(\"south\")"),
            "{shown}"
        );
        assert!(shown.contains("max_staleness: Some(2.5s)"), "{shown}");
        assert!(shown.contains("zone: Some(\"north\")"), "{shown}");
        assert!(!shown.contains("hush"), "{shown}");
        let builder = format!("{:?}", config.builder());
        assert!(builder.contains("pool_pre_ping"), "{builder}");
    }

    #[test]
    fn a_mistake_in_a_file_names_the_setting_and_the_nearest() {
        let primary = "primary = \"postgresql://db1/shop\"\n";
        for (line, part) in [
            ("min_replica = 1", "min_replicas"),
            ("pool_szie = 1", "pool_size"),
            ("max_staleness = \"long\"", "max_staleness"),
            (
                "replicas = [{ url = \"postgresql://db2/shop\", wieght = 2 }]",
                "wieght",
            ),
        ] {
            let error = toml::from_str::<DatabaseConfig>(&format!("{primary}{line}"));
            let error = error.expect_err("a mistake").to_string();
            assert!(error.contains(part), "{error}");
        }
        let nobody = toml::from_str::<DatabaseConfig>("pool_size = 1").expect_err("no node");
        assert!(nobody.to_string().contains("no primary"), "{nobody}");
    }
}
