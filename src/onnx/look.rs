//! What a file that is no ONNX model seems to be, by how it begins, so that the message can say what to do.

/// Beginnings of files that people take for models, with what to say of them.
const BEGINNINGS: &[(usize, &[u8], &str)] = &[
    (0, b"version https://git-lfs", "it is a pointer of Git LFS; `git lfs pull` gets the model itself"),
    (0, b"PK\x03\x04", "it is a zip archive, as PyTorch's .pt and .npz are; export the model to ONNX"),
    (0, b"\x80\x02", "it is a Python pickle, as older PyTorch files are; export the model to ONNX"),
    (0, b"\x89HDF", "it is an HDF5 file, as Keras writes; export the model to ONNX"),
    (4, b"TFL3", "it is a TensorFlow Lite model; convert it with tf2onnx"),
    (4, b"ORTM", "it is in ONNX Runtime's own .ort format; take the .onnx file that it was made from"),
    (0, b"GGUF", "it is a GGUF file of weights, without a graph"),
    (8, b"{\"", "it is a safetensors file of weights, without a graph"),
    (0, b"\x1f\x8b", "it is compressed with gzip; unpack it first"),
    (0, b"\x89PNG", "it is a PNG picture"),
    (0, b"\xff\xd8\xff", "it is a JPEG picture"),
    (0, b"<!DOCTYPE", "it is a web page; was the download answered with an error?"),
    (0, b"<html", "it is a web page; was the download answered with an error?"),
];

/// What to say of a file that does not decode.
pub(super) fn seems(bytes: &[u8]) -> &'static str {
    let begins = |(at, start, _): &&(usize, &[u8], &str)| bytes.get(*at..).is_some_and(|rest| rest.starts_with(start));
    if let Some((.., said)) = BEGINNINGS.iter().find(begins) {
        return said;
    }
    let start = &bytes[..bytes.len().min(512)];
    let is_text = start.utf8_chunks().all(|chunk| {
        let printed = chunk.valid().chars().all(|c| !c.is_control() || c.is_whitespace());
        printed && chunk.invalid().len() < 4 && (chunk.invalid().is_empty() || bytes.len() > 512)
    });
    if is_text { "it is text" } else { "its bytes are no message of ONNX's format" }
}

#[cfg(test)]
mod tests {
    use super::seems;

    #[test]
    fn what_people_take_for_models_is_named() {
        assert!(seems(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n").contains("git lfs pull"));
        assert!(seems(b"\x10\0\0\0\0\0\0\0{\"a\":{}}").contains("safetensors"));
        assert!(seems(b"\x1c\0\0\0TFL3\x14\0").contains("tf2onnx"));
        assert_eq!(seems("größer".as_bytes()), "it is text");
        assert_eq!(seems(&[0xff; 64]), "its bytes are no message of ONNX's format");
        assert_eq!(seems(&[0; 64]), "its bytes are no message of ONNX's format");
    }
}
