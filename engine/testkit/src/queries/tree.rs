//! A derivation of the grammar. In: rules applied. Out: SQL, the names of the rules, and all trees that are one step smaller.

use std::collections::BTreeSet;

/// What stands at a place, so that a part of it may take its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// An expression of this type over the columns of one scope.
    Expr(Type, u32),
    /// A whole query with columns of these types.
    Query(Vec<Type>),
    /// Anything else; never replaced.
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Type {
    Int,
    Double,
    Text,
    Bool,
    Time,
    /// Of integers.
    List,
    /// Of an integer `a` and a text `b`.
    Struct,
    /// From texts to integers.
    Map,
    /// A text that holds JSON.
    Json,
}

impl Type {
    pub const SCALARS: [Type; 5] = [Type::Int, Type::Double, Type::Text, Type::Bool, Type::Time];
    pub const NESTED: [Type; 3] = [Type::List, Type::Struct, Type::Map];

    /// The smallest expression of the type.
    fn plainest(self) -> &'static str {
        match self {
            Type::Int => "1",
            Type::Double => "CAST(1 AS DOUBLE)",
            Type::Text => "'a'",
            Type::Bool => "TRUE",
            Type::Time => "TIMESTAMP '2025-01-01 00:00:00'",
            Type::List => "make_array(CAST(1 AS BIGINT))",
            Type::Struct => "named_struct('a', CAST(1 AS BIGINT), 'b', 'x')",
            Type::Map => "map(make_array('p', 'q'), make_array(CAST(1 AS BIGINT), CAST(2 AS BIGINT)))",
            Type::Json => "'{\"a\": 1}'",
        }
    }
}

/// One rule applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Empty: of no interest.
    pub rule: &'static str,
    pub kind: Kind,
    pub parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    Text(String),
    Node(Node),
    List(List),
}

/// A clause of several items, which is left out with the last of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// Before the first item: ` WHERE `.
    pub open: &'static str,
    pub separator: &'static str,
    pub items: Vec<Node>,
    pub min: usize,
}

impl Node {
    pub fn new(rule: &'static str, kind: Kind, parts: Vec<Part>) -> Node {
        Node { rule, kind, parts }
    }

    pub fn text(text: impl Into<String>) -> Node {
        Node { rule: "", kind: Kind::Other, parts: vec![Part::Text(text.into())] }
    }

    /// The template's `{}` filled with nodes in order.
    pub fn filled(rule: &'static str, kind: Kind, template: &str, nodes: Vec<Node>) -> Node {
        let mut parts = Vec::new();
        let mut nodes = nodes.into_iter();
        for (index, text) in template.split("{}").enumerate() {
            if index > 0 {
                parts.push(Part::Node(nodes.next().expect("as many nodes as places")));
            }
            parts.push(Part::Text(text.to_string()));
        }
        Node { rule, kind, parts }
    }

    pub fn sql(&self) -> String {
        let mut text = String::new();
        self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) {
        for part in &self.parts {
            match part {
                Part::Text(words) => text.push_str(words),
                Part::Node(node) => node.write(text),
                Part::List(list) => {
                    for (index, item) in list.items.iter().enumerate() {
                        text.push_str(if index == 0 { list.open } else { list.separator });
                        item.write(text);
                    }
                }
            }
        }
    }

    /// The rules of the whole tree.
    pub fn rules(&self) -> BTreeSet<&'static str> {
        let mut rules = BTreeSet::new();
        self.visit(&mut |node| {
            if !node.rule.is_empty() {
                rules.insert(node.rule);
            }
        });
        rules
    }

    fn visit<'a>(&'a self, see: &mut dyn FnMut(&'a Node)) {
        see(self);
        self.children().for_each(|child| child.visit(see));
    }

    fn children(&self) -> impl Iterator<Item = &Node> {
        self.parts.iter().flat_map(|part| match part {
            Part::Text(_) => [].iter(),
            Part::Node(node) => std::slice::from_ref(node).iter(),
            Part::List(list) => list.items.iter(),
        })
    }

    /// Trees with one step less: an item of a clause left out, a node replaced by one of its kind below it, an expression by a literal. Those
    /// that leave out most come first.
    pub fn smaller(&self) -> Vec<Node> {
        let length = self.sql().len();
        let mut found = self.steps();
        found.retain(|tree| tree.sql().len() < length);
        found.sort_by_key(|tree| tree.sql().len());
        found.dedup();
        found
    }

    fn steps(&self) -> Vec<Node> {
        let mut found = self.replacements();
        for (index, part) in self.parts.iter().enumerate() {
            let with = |part: Part| {
                let mut parts = self.parts.clone();
                parts[index] = part;
                Node { parts, ..self.clone() }
            };
            match part {
                Part::Text(_) => {}
                Part::Node(node) => found.extend(node.steps().into_iter().map(|step| with(Part::Node(step)))),
                Part::List(list) => {
                    if list.items.len() > list.min {
                        for left_out in 0..list.items.len() {
                            let mut items = list.items.clone();
                            items.remove(left_out);
                            found.push(with(Part::List(List { items, ..list.clone() })));
                        }
                    }
                    for (at, item) in list.items.iter().enumerate() {
                        for step in item.steps() {
                            let mut items = list.items.clone();
                            items[at] = step;
                            found.push(with(Part::List(List { items, ..list.clone() })));
                        }
                    }
                }
            }
        }
        found
    }

    fn replacements(&self) -> Vec<Node> {
        let mut found = Vec::new();
        if self.kind == Kind::Other {
            return found;
        }
        self.children().for_each(|child| {
            child.visit(&mut |node| {
                if node.kind == self.kind {
                    found.push(node.clone());
                }
            })
        });
        if let Kind::Expr(of, scope) = self.kind {
            found.push(Node::new("literal", Kind::Expr(of, scope), vec![Part::Text(of.plainest().into())]));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smaller_trees_leave_out_items_and_put_parts_in_the_place_of_wholes() {
        let column = |name: &str| Node::new("column", Kind::Expr(Type::Int, 1), vec![Part::Text(name.into())]);
        let sum = Node::filled("add", Kind::Expr(Type::Int, 1), "({} + {})", vec![column("a"), column("b")]);
        let filter = List { open: " WHERE ", separator: " AND ", items: vec![column("c")], min: 0 };
        let tree = Node::new("select", Kind::Other, vec![Part::Text("SELECT ".into()), Part::Node(sum), Part::List(filter)]);
        assert_eq!(tree.sql(), "SELECT (a + b) WHERE c");
        assert_eq!(tree.rules().into_iter().collect::<Vec<_>>(), ["add", "column", "select"]);
        let texts: Vec<String> = tree.smaller().iter().map(Node::sql).collect();
        assert_eq!(texts, ["SELECT (a + b)", "SELECT a WHERE c", "SELECT b WHERE c", "SELECT 1 WHERE c"]);
    }
}
