//! Which node is meant: by its place or by its name.

use std::fmt;

use crate::node::NodeParts;

/// A node, as people name it: by its index in [`DatabaseStatus::nodes`](crate::DatabaseStatus::nodes), or by its
/// name there (`"replica 1"`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// By its index.
    Index(usize),
    /// By its name.
    Name(String),
}

impl From<usize> for Which {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

impl From<&str> for Which {
    fn from(name: &str) -> Self {
        Self::Name(name.to_owned())
    }
}

impl From<String> for Which {
    fn from(name: String) -> Self {
        Self::Name(name)
    }
}

/// There is no such node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnknownNode {
    /// What was asked for.
    pub asked: Which,
    /// The names of the nodes that there are, in their order.
    pub known: Vec<String>,
}

impl Which {
    /// The node's index.
    pub(crate) fn among(self, nodes: &[NodeParts]) -> Result<usize, UnknownNode> {
        let found = match &self {
            Self::Index(index) => Some(*index).filter(|index| *index < nodes.len()),
            Self::Name(name) => nodes.iter().position(|node| *node.name == **name),
        };
        found.ok_or_else(|| UnknownNode {
            asked: self,
            known: nodes.iter().map(|node| node.name.to_string()).collect(),
        })
    }
}

impl fmt::Display for UnknownNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.asked {
            Which::Index(index) => write!(f, "there is no node {index}")?,
            Which::Name(name) => write!(f, "there is no node {name:?}")?,
        }
        f.write_str("; there are, from 0:")?;
        for (index, name) in self.known.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma} {name:?}")?;
        }
        Ok(())
    }
}

impl std::error::Error for UnknownNode {}
