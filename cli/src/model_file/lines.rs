//! On which line of a model file each field stands, so that faults which only the control plane finds have a place too.

use std::collections::HashMap;
use std::fmt;

use postroom_proto::reason::FieldFault;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// Lines by field path, as in `queues[0].addresses[2].email`.
#[derive(Debug, Default)]
pub struct Lines(HashMap<String, u64>);

impl Lines {
    /// The lines of a text that can be read; of any other, none.
    pub fn of(text: &str) -> Self {
        let mut lines = Self::default();
        let options = serde_saphyr::options! { with_snippet: false };
        if let Ok(root) = serde_saphyr::from_str_with_options::<Node>(text, options) {
            lines.add("", &root);
        }
        lines
    }

    /// The fault with the line of its field before the path. A field that is missing has the line of what it is missing
    /// in; one that the file does not hold stays as it is.
    pub fn place(&self, fault: FieldFault) -> FieldFault {
        let mut path = fault.field.as_str();
        loop {
            if let Some(line) = self.0.get(path) {
                return FieldFault { field: format!("line {line}, {}", fault.field), ..fault };
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None => return fault,
            }
        }
    }

    fn add(&mut self, path: &str, node: &Node) {
        match node {
            Node::Leaf => {}
            Node::Map(entries) => {
                for (key, value) in entries {
                    let path = if path.is_empty() { key.value.clone() } else { format!("{path}.{}", key.value) };
                    self.0.insert(path.clone(), key.referenced.line());
                    self.add(&path, value);
                }
            }
            Node::Seq(items) => {
                for (n, item) in items.iter().enumerate() {
                    let path = format!("{path}[{n}]");
                    self.0.insert(path.clone(), item.referenced.line());
                    self.add(&path, &item.value);
                }
            }
        }
    }
}

/// The shape of any YAML, without what stands in it: that may be a secret.
enum Node {
    Leaf,
    Seq(Vec<Spanned<Node>>),
    Map(Vec<(Spanned<String>, Node)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

macro_rules! leaves {
    ($($visit:ident: $type:ty),*) => {$(
        fn $visit<E>(self, _: $type) -> Result<Node, E> {
            Ok(Node::Leaf)
        }
    )*};
}

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    leaves! { visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_i128: i128, visit_u128: u128, visit_f64: f64, visit_str: &str, visit_bytes: &[u8] }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Node::Seq(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            // A key of a secret's kind is no place that a fault names.
            if matches!(key.value.as_str(), "secret" | "password") {
                map.next_value::<IgnoredAny>()?;
                entries.push((key, Node::Leaf));
            } else {
                entries.push((key, map.next_value()?));
            }
        }
        Ok(Node::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_find_their_lines_whatever_the_style() {
        let text = "# a model\ninstances: [{name: core1},\n  {name: core2}]\nqueues:\n\n  - name: a\n    secret: {value: planted}\n    addresses:\n      - {email: x,\n         priority: 5}\n      - email: y\n        server: s\n";
        let lines = Lines::of(text);
        let place = |field: &str| {
            let fault = FieldFault { field: field.into(), description: "d".into() };
            lines.place(fault).field
        };
        for (field, line) in [
            ("instances[1].name", 3),
            ("instances[0]", 2),
            ("queues[0].name", 6),
            ("queues[0].secret", 7),
            ("queues[0].addresses[0].priority", 10),
            ("queues[0].addresses[1].server", 12),
            ("queues[0].addresses[1].password", 11),
            ("queues[0].instance", 6),
            ("queues[0].imap.port", 6),
        ] {
            assert_eq!(place(field), format!("line {line}, {field}"));
        }
        for elsewhere in ["system.priority", "removals[0]", "instances_of_others"] {
            assert_eq!(place(elsewhere), elsewhere);
        }
        assert_eq!(place("queues[\"other\"].addresses[0].sender"), "line 4, queues[\"other\"].addresses[0].sender");
        assert!(Lines::of("queues: [").0.is_empty());
    }
}
