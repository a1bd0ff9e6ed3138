//! Where in the source model a node comes from: the scopes in its name, or in what exporters note beside it.

use std::collections::BTreeMap;

use crate::graph::Node;

/// The scopes around a node, outermost first, without the node itself.
///
/// Exporters that trace write paths, `/model.0/conv/Conv`; torch's newer exporter names nodes `node_conv2d_3` and notes the
/// module path in a property.
pub fn scopes(node: &Node) -> Vec<String> {
    let noted = node.metadata.iter().find(|e| e.key.as_deref() == Some("pkg.torch.onnx.name_scopes"));
    if let Some(list) = noted.and_then(|e| e.value.as_deref()) {
        return from_list(list);
    }
    let mut parts: Vec<&str> = node.name.split('/').filter(|part| !part.is_empty()).collect();
    parts.pop();
    parts.into_iter().map(str::to_string).collect()
}

/// Scopes from a Python list of ever longer module paths: `['', 'model', 'model.0', 'conv2d']`, the node last.
fn from_list(list: &str) -> Vec<String> {
    let inner = list.trim().trim_start_matches('[').trim_end_matches(']');
    let mut paths: Vec<&str> = inner.split(',').map(|part| part.trim().trim_matches(['\'', '"'])).collect();
    paths.pop();
    let mut scopes: Vec<String> = Vec::new();
    let mut outer = "";
    for path in paths.into_iter().filter(|path| !path.is_empty()) {
        let own = path.strip_prefix(outer).map_or(path, |rest| rest.trim_start_matches('.'));
        scopes.push(own.to_string());
        outer = path;
    }
    scopes
}

/// Models of no more nodes than this are not taken apart for one scope holding most of them.
const FEW: usize = 16;

/// A tree of scopes with the nodes that stand right in each.
#[derive(Default)]
pub struct Tree {
    inner: BTreeMap<String, Tree>,
    own: usize,
    all: usize,
}

impl Tree {
    /// Adds a node by its scopes.
    pub fn add(&mut self, scopes: &[String]) {
        self.all += 1;
        match scopes.split_first() {
            Some((first, rest)) => self.inner.entry(first.clone()).or_default().add(rest),
            None => self.own += 1,
        }
    }

    /// How many of a node's scopes name its layer: as few as still tell layers apart.
    ///
    /// A scope is opened up where it is a mere container of numbered ones (`encoder/layer.0`, `encoder/layer.1`), or
    /// where it holds most of the model.
    pub fn depth(&self, scopes: &[String]) -> usize {
        let (mut tree, mut depth) = (self, 0);
        for scope in scopes {
            if depth > 0 && !tree.opens(self.all) {
                break;
            }
            let Some(inner) = tree.inner.get(scope) else { break };
            (tree, depth) = (inner, depth + 1);
        }
        depth
    }

    fn opens(&self, total: usize) -> bool {
        let numbered = self.inner.keys().filter(|name| name.ends_with(|c: char| c.is_ascii_digit())).count();
        let container = self.own == 0 && numbered * 2 > self.inner.len();
        let most = total > FEW && self.all * 2 > total && (self.inner.len() > 1 || self.own == 0);
        container || most
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::proto::StringStringEntryProto;

    fn named(name: &str) -> Vec<String> {
        scopes(&Node::new("Relu", [], []).named(name))
    }

    #[test]
    fn scopes_come_from_names_and_from_notes() {
        assert_eq!(named("/model.10/m/m.0/attn/Split"), ["model.10", "m", "m.0", "attn"]);
        assert_eq!(named("Conv_3"), Vec::<String>::new());
        let note = StringStringEntryProto::new(
            "pkg.torch.onnx.name_scopes",
            "['', 'model', 'model.0', 'model.0.conv', 'conv2d']",
        );
        let mut node = Node::new("Conv", [], []).named("node_conv2d");
        node.metadata.push(note);
        assert_eq!(scopes(&node), ["model", "0", "conv"]);
    }

    #[test]
    fn containers_of_numbered_layers_are_opened() {
        let names = ["/enc/layer.0/a", "/enc/layer.1/a", "/dec/x/a", "/dec/b", "/dec/y/a", "/head/a"];
        let mut tree = Tree::default();
        names.iter().for_each(|name| tree.add(&named(name)));
        let layer = |name: &str| named(name)[..tree.depth(&named(name))].join("/");
        assert_eq!(layer("/enc/layer.1/a"), "enc/layer.1");
        assert_eq!(layer("/dec/x/a"), "dec");
        assert_eq!(layer("/head/a"), "head");
    }
}
