//! What porter does not touch comes back as it was: every test model, through messages, graph and file.

use std::path::{Path, PathBuf};

use porter::graph::Model;
use porter::onnx::{self, fill};
use prost::Message;

fn models() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "onnx"));
    files.sort();
    assert!(files.len() >= 17, "the test models are missing");
    files
}

/// Equal, or a panic that shows the first part that is not (a whole model is no message).
fn assert_same(left: &onnx::proto::ModelProto, right: &onnx::proto::ModelProto, path: &Path) {
    let (l, r) = (left.graph.as_ref().unwrap(), right.graph.as_ref().unwrap());
    for (l, r) in l.node.iter().zip(&r.node) {
        assert!(l == r, "{}: {l:?}\n{r:?}", path.display());
    }
    for (l, r) in l.initializer.iter().zip(&r.initializer) {
        assert!(l == r, "{}: {:?} {:?}", path.display(), l.name, r.name);
    }
    assert_eq!((l.node.len(), l.initializer.len()), (r.node.len(), r.initializer.len()));
    for (l, r) in [(&l.input, &r.input), (&l.output, &r.output), (&l.value_info, &r.value_info)] {
        l.iter().zip(r).for_each(|(l, r)| assert_eq!(l, r, "{}", path.display()));
        assert_eq!(l.len(), r.len());
    }
    assert_eq!(left.metadata_props, right.metadata_props);
    assert_eq!(
        (&l.name, &l.doc_string, &l.metadata_props, &l.unknown),
        (&r.name, &r.doc_string, &r.metadata_props, &r.unknown)
    );
    assert_eq!((&left.opset_import, &left.unknown), (&right.opset_import, &right.unknown));
    assert!(left == right, "{}: something else differs", path.display());
}

#[test]
fn a_graph_turns_back_into_the_messages_it_was_made_from() {
    for path in models() {
        let proto = onnx::read(&path).unwrap();
        let again = Model::from_proto(proto.clone()).unwrap().to_proto();
        assert_same(&again, &proto, &path);
    }
}

#[test]
fn a_written_model_reads_the_same_with_inline_and_with_external_weights() {
    let folder = tempfile::tempdir().unwrap();
    for path in models().into_iter().filter(|p| p.ends_with("yolo26n.onnx") || p.ends_with("yolo26n-cls.onnx")) {
        let proto = onnx::read(&path).unwrap();
        for limit in [usize::MAX, 0] {
            let copy = folder.path().join("copy.onnx");
            onnx::write_with_limit(&copy, &proto, limit).unwrap();
            assert_same(&onnx::read(&copy).unwrap(), &proto, &path);
        }
    }
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "only the model and its data file stay: {left:?}");
}

#[test]
fn undeclared_fields_survive_at_every_level() {
    let mut model = onnx::proto::ModelProto::decode(&*std::fs::read(&models()[0]).unwrap()).unwrap();
    // Field 1000, a run of bytes; field 1001, a number; field 1002, four bytes; field 1003, an (obsolete) group.
    let mut extra = Vec::new();
    prost::encoding::string::encode(1000, &"kept".to_string(), &mut extra);
    prost::encoding::int64::encode(1001, &-7, &mut extra);
    prost::encoding::fixed32::encode(1002, &0xdead_beef, &mut extra);
    prost::encoding::encode_key(1003, prost::encoding::WireType::StartGroup, &mut extra);
    prost::encoding::int64::encode(1, &5, &mut extra);
    prost::encoding::encode_key(1003, prost::encoding::WireType::EndGroup, &mut extra);
    let graph = model.graph.as_mut().unwrap();
    graph.unknown = extra.clone();
    graph.node[0].unknown = extra.clone();
    graph.node[0].attribute[0].unknown = extra.clone();
    graph.initializer[0].unknown = extra.clone();
    graph.input[0].unknown = extra.clone();
    model.unknown = extra;
    let bytes = onnx::encode(&model);
    let read = onnx::decode(bytes).unwrap();
    let again = Model::from_proto(read.clone()).unwrap().to_proto();
    assert_same(&again, &read, &models()[0]);
    let graph = again.graph.unwrap();
    for unknown in
        [&again.unknown, &graph.unknown, &graph.node[0].unknown, &graph.initializer[0].unknown, &graph.input[0].unknown]
    {
        assert_eq!(unknown, &model.unknown);
    }
}

#[test]
fn a_stripped_model_draws_the_values_that_the_recipe_says() {
    let path = models().into_iter().find(|p| p.ends_with("yolo26n.onnx")).unwrap();
    let raw = onnx::proto::ModelProto::decode(&*std::fs::read(&path).unwrap()).unwrap();
    let read = onnx::read(&path).unwrap();
    let (stripped, filled) = raw
        .graph
        .unwrap()
        .initializer
        .into_iter()
        .zip(read.graph.unwrap().initializer)
        .find(|(stripped, _)| stripped.external("location") == Some(fill::LOCATION))
        .unwrap();
    let recipe = fill::Fill::of(&stripped, filled.dtype(), filled.len()).unwrap().unwrap();
    let values = filled.to_f32s().unwrap();
    assert_eq!(values.len(), filled.len());
    assert!(values.iter().enumerate().all(|(i, &x)| x == recipe.value(i) as f32));
}
