//! For any model: what is read comes back as it was. For any bytes: porter refuses them or reads them, and never falls.

mod common;

use std::fs;

use bytes::Bytes;
use common::generate::{self, Choices};
use porter::graph::Model;
use porter::onnx::{self, proto::ModelProto};
use proptest::prelude::*;
use prost::Message;

/// The message in the one form that decoding gives, so that equal content is equal bytes.
fn canonical(model: &ModelProto) -> Bytes {
    onnx::encode(&ModelProto::decode(onnx::encode(model)).unwrap())
}

/// Panics with the first part that differs: whole models make no readable message.
fn assert_same(left: &ModelProto, right: &ModelProto) {
    if canonical(left) == canonical(right) {
        return;
    }
    let (l, r) = (ModelProto::decode(canonical(left)).unwrap(), ModelProto::decode(canonical(right)).unwrap());
    let (lg, rg) = (l.graph.clone().unwrap(), r.graph.clone().unwrap());
    assert_eq!(lg.node, rg.node);
    assert_eq!(lg.initializer, rg.initializer);
    assert_eq!(lg.input, rg.input);
    assert_eq!(lg.output, rg.output);
    assert_eq!(lg.value_info, rg.value_info);
    assert_eq!(lg, rg);
    assert_eq!(l, r);
    panic!("the bytes differ where the messages do not");
}

fn cases(count: u32) -> ProptestConfig {
    ProptestConfig { cases: count, failure_persistence: None, ..Default::default() }
}

proptest! {
    #![proptest_config(cases(1500))]

    #[test]
    fn any_model_comes_back_through_the_graph_as_it_was(seed: u64, size in 1usize..8) {
        let model = generate::model(seed, size);
        let bytes = onnx::encode(&model);
        let read = onnx::decode(bytes).unwrap();
        assert_same(&read, &model);
        let again = Model::from_proto(read).unwrap().to_proto();
        assert_same(&again, &model);
    }

    /// As above through a file, with every tensor that can in a data file beside it.
    #[test]
    fn any_model_comes_back_from_a_file_as_it_was(seed: u64, outside: bool) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        let mut model = generate::model(seed, 4);
        // One tensor long enough to be moved out, and one that is not.
        let graph = model.graph.as_mut().unwrap();
        for (name, length) in [("long", 400), ("longer", 2000), ("short", 100)] {
            graph.initializer.push(onnx::Tensor::from_f32(name, &[length], &vec![0.1; length as usize]));
        }
        onnx::write_with_limit(&path, &model, if outside { 0 } else { usize::MAX }).unwrap();
        assert_eq!(folder.path().join("model.onnx.data").exists(), outside);
        let mut read = onnx::read(&path).unwrap();
        if outside {
            // `data_location: 0` is not written where it was; the values are in place all the same.
            forget_locations(&mut read);
            forget_locations(&mut model);
        }
        assert_same(&read, &model);
    }
}

fn forget_locations(model: &mut ModelProto) {
    for tensor in model.graph.iter_mut().flat_map(|graph| &mut graph.initializer) {
        tensor.data_location = None;
    }
}

/// Bytes like those of a model: some changed, put in, taken out, repeated or cut off.
fn damage(bytes: &[u8], choices: &mut Choices) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..1 + choices.below(6) {
        if out.is_empty() {
            break;
        }
        let at = choices.below(out.len());
        match choices.below(6) {
            0 => out[at] = choices.next() as u8,
            1 => out[at] ^= 1 << choices.below(8),
            2 => out.insert(at, *[0xff, 0x00, 0x80, 0x7f].get(choices.below(4)).unwrap()),
            3 => drop(out.remove(at)),
            4 => {
                let end = (at + choices.below(64)).min(out.len());
                let piece = out[at..end].to_vec();
                let to = choices.below(out.len());
                out.splice(to..to, piece);
            }
            _ => out.truncate(at),
        }
    }
    out
}

/// Everything that porter does with bytes before it knows that they make sense.
fn take_in(bytes: Vec<u8>) -> bool {
    let Ok(mut proto) = onnx::decode(bytes.into()) else { return false };
    let _ = onnx::strip::strip(&mut proto);
    match Model::from_proto(proto) {
        Ok(model) => {
            let _ = onnx::encode(&model.to_proto()).len();
            true
        }
        Err(_) => false,
    }
}

proptest! {
    #![proptest_config(cases(4000))]

    #[test]
    fn damaged_models_are_refused_or_read(seed: u64) {
        let mut choices = Choices::new(seed);
        let bytes = onnx::encode(&generate::model(choices.next(), 4));
        take_in(damage(&bytes, &mut choices));
    }
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn damaged_real_models_are_refused_or_read(seed: u64) {
        let bytes = fs::read(common::model_path("yolo26n-cls.onnx")).unwrap();
        take_in(damage(&bytes, &mut Choices::new(seed)));
    }

    #[test]
    fn any_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        take_in(bytes.clone());
        take_in([&[0x08, 0x08][..], &bytes].concat());
    }
}

/// Beyond protobuf's 2 GiB. The source is a sparse file, so this costs one pass of writing.
#[test]
fn a_model_of_more_than_two_gigabytes() {
    use common::build::*;
    use porter::onnx::proto::{LOCATION_EXTERNAL, StringStringEntryProto};
    use std::io::{Seek, SeekFrom, Write};

    let folder = tempfile::tempdir().unwrap();
    let rows: i64 = 1 << 20; // of 513 floats: 2.15 GB
    let length = rows as u64 * 513 * 4;
    let mut data = fs::File::create(folder.path().join("weights.bin")).unwrap();
    data.set_len(length + 12).unwrap();
    data.seek(SeekFrom::Start(length + 8)).unwrap();
    data.write_all(&7.5f32.to_le_bytes()).unwrap();
    drop(data);
    let model = small_with(|g| {
        let entry = |key: &str, value: &str| StringStringEntryProto::new(key, value);
        g.initializer.push(onnx::Tensor {
            name: Some("large".into()),
            data_type: Some(1),
            dims: vec![rows, 513],
            data_location: Some(LOCATION_EXTERNAL),
            external_data: vec![entry("location", "weights.bin"), entry("offset", "12")],
            ..Default::default()
        });
    });
    let (from, to) = (folder.path().join("from.onnx"), folder.path().join("to.onnx"));
    fs::write(&from, onnx::encode(&model)).unwrap();
    common::run_fine(common::porter().arg("hydrate").arg(&from).arg("-o").arg(&to));
    assert!(fs::metadata(&to).unwrap().len() < 10_000);
    let read = onnx::read(&to).unwrap();
    let large = read.graph.unwrap().initializer.pop().unwrap();
    assert_eq!(large.dims, [rows, 513]);
    let bytes = large.to_bytes().unwrap();
    assert_eq!(bytes.len() as u64, length);
    assert_eq!(bytes[bytes.len() - 4..], 7.5f32.to_le_bytes());
}
