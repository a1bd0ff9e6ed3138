use super::*;
use crate::graph::builder::Build;
use crate::graph::shapes;
use crate::inputs::{expand, write};

fn model(inputs: &[(&str, DType, &[i64])]) -> Model {
    let mut build = Build::new();
    let ids: Vec<_> = inputs.iter().map(|(name, dtype, dims)| build.input(name, *dtype, dims)).collect();
    let y = build.op("Relu", "relu", &ids[..1]);
    let mut model = build.finish(&[y]);
    shapes::infer(&mut model).unwrap();
    model
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn arrays(&self, file: &str, list: &[Tensor]) -> String {
        let path = self.0.path().join(file);
        let tensors = list.iter().map(|tensor| (tensor.name().to_string(), tensor.clone())).collect();
        write(&path, &tensors).unwrap();
        path.display().to_string()
    }

    fn picture(&self, file: &str, width: u32, height: u32, red: u8) -> String {
        let path = self.0.path().join(file);
        RgbImage::from_pixel(width, height, image::Rgb([red, 0, 0])).save(&path).unwrap();
        path.display().to_string()
    }

    fn told(&self, plan: Result<Plan, InputError>) -> String {
        let folder = self.0.path().display().to_string();
        plan.map_or_else(|error| error.to_string(), |plan| format!("{} runs", plan.runs())).replace(&folder, "<folder>")
    }
}

fn plan_of(model: &Model, given: &[String], options: &Options) -> Result<Plan, InputError> {
    let wanted = Wanted::by(model);
    let names: Vec<&str> = wanted.slots.iter().map(|slot| slot.name.as_str()).collect();
    let given = given.iter().map(|text| expand(text, &names)).collect::<Result<Vec<_>, _>>()?;
    Plan::new(&wanted, &given, options)
}

#[test]
fn what_does_not_fit_is_told_with_file_and_input() {
    let folder = Folder::new();
    let model = model(&[("x", DType::Float, &[1, 4]), ("n", DType::Int64, &[-1])]);
    let options = Options::default();
    let good =
        folder.arrays("good.npz", &[Tensor::from_f32("x", &[1, 4], &[0.0; 4]), Tensor::from_i64("n", &[2], &[1, 2])]);
    assert_eq!(folder.told(plan_of(&model, std::slice::from_ref(&good), &options)), "1 runs");
    let x = |dims: &[i64], count: usize| Tensor::from_f32("x", dims, &vec![0.0; count]);
    let double = Tensor::from_f64s("x", DType::Double, &[1, 4], &[0.0; 4]).unwrap();
    let cases = [
        folder.arrays("type.npz", &[double]),
        folder.arrays("size.npz", &[x(&[1, 5], 5)]),
        folder.arrays("rank.npz", &[x(&[4], 4)]),
        folder.arrays("other.npz", &[Tensor::from_i64("m", &[2], &[1, 2])]),
        folder.arrays("part.npz", &[x(&[1, 4], 4)]),
        folder.arrays("nameless.npy", &[x(&[1, 4], 4)]),
        folder.picture("a.png", 4, 4, 0),
    ];
    let told: Vec<String> =
        cases.iter().map(|case| folder.told(plan_of(&model, std::slice::from_ref(case), &options))).collect();
    assert_eq!(
        told,
        [
            "input 'x' from <folder>/type.npz: is float64, and the model takes float32[1,4]",
            "input 'x' from <folder>/size.npz: is [1,5], and the model takes float32[1,4]",
            "input 'x' from <folder>/rank.npz: is [4], and the model takes float32[1,4]",
            "<folder>/other.npz: holds m, and the model's inputs are x (float32[1,4]), n (int64[N1])",
            "input 'n' (int64[N1]) is not among what was given (<folder>/part.npz); give it with --input n=FILE, or --seed N makes it up",
            "<folder>/nameless.npy: has no name for its array: give it as NAME=<folder>/nameless.npy; the inputs are x (float32[1,4]), n (int64[N1])",
            "--input <folder>/a.png: <folder>/a.png is a picture, and no input takes one: x (float32[1,4]), n (int64[N1])",
        ]
        .map(|line: &str| line.to_string())
    );
    let seeded = Options { seed: Some(3), ..options };
    let plan = plan_of(&model, &cases[4..5], &seeded).unwrap();
    let feed = plan.load(0, std::slice::from_ref(&model), false).unwrap();
    assert_eq!(feed.tensors.keys().collect::<Vec<_>>(), ["x", "n"]);
}

#[test]
fn pictures_fill_batches_and_the_rest_of_the_last_is_filling() {
    let folder = Folder::new();
    let model = model(&[("images", DType::Float, &[4, 3, 32, 32])]);
    let pictures: Vec<String> = (0..6).map(|i| folder.picture(&format!("{i}.png"), 32, 16, i * 40)).collect();
    let plan = plan_of(&model, &pictures, &Options::default()).unwrap();
    assert_eq!(plan.runs(), 2);
    let last = plan.load(1, &[], true).unwrap();
    assert_eq!((last.frames.len(), last.batch), (2, 4));
    assert_eq!(last.tensors["images"].dims(), [4, 3, 32, 32]);
    let values = last.tensors["images"].to_f32s().unwrap();
    let middle = |element: usize| (values[element * 3 * 1024 + 512] * 255.0).round();
    assert_eq!([0, 1, 2, 3].map(middle), [160.0, 200.0, 200.0, 200.0]);
    assert_eq!(last.frames[0].picture.as_ref().unwrap().get_pixel(0, 0).0, [160, 0, 0]);
    let told = folder.told(plan_of(&model, &pictures, &Options { batch: Some(2), ..Options::default() }));
    assert_eq!(told, "--batch 2: the model's input 'images' has a batch of 4, fixed");
}

#[test]
fn an_array_of_many_elements_is_spread_over_runs() {
    let folder = Folder::new();
    let model = model(&[("x", DType::Float, &[2, 3])]);
    let values: Vec<f32> = (0..15).map(|i| i as f32).collect();
    let file = folder.arrays("many.npy", &[Tensor::from_f32("x", &[5, 3], &values)]);
    let plan = plan_of(&model, &[file], &Options::default()).unwrap();
    assert_eq!(plan.runs(), 3);
    let last = plan.load(2, &[], false).unwrap();
    assert_eq!((last.frames.len(), last.batch), (1, 2));
    assert_eq!(last.tensors["x"].to_f32s().unwrap(), [12.0, 13.0, 14.0, 12.0, 13.0, 14.0]);
}

#[test]
fn what_is_no_batch_is_not_cut_into_runs() {
    let folder = Folder::new();
    // The first size of `x` is time: what comes out has another.
    let model = model(&[("state", DType::Float, &[1, 2]), ("x", DType::Float, &[2, 3])]);
    let state = folder.arrays("state.npz", &[Tensor::from_f32("state", &[1, 2], &[0.0; 2])]);
    let x = folder.arrays("x.npz", &[Tensor::from_f32("x", &[4, 3], &[0.0; 12])]);
    let told = folder.told(plan_of(&model, &[state, x], &Options::default()));
    assert_eq!(told, "input 'x' from <folder>/x.npz: is [4,3], and the model takes float32[2,3]");
}

#[test]
fn several_archives_are_several_runs_and_one_serves_all() {
    let folder = Folder::new();
    let model = model(&[("x", DType::Float, &[1, 2]), ("state", DType::Float, &[1])]);
    let x = |value: f32| Tensor::from_f32("x", &[1, 2], &[value; 2]);
    let given = [
        folder.arrays("a.npz", &[x(1.0)]),
        folder.arrays("b.npz", &[x(2.0)]),
        folder.arrays("state.safetensors", &[Tensor::from_f32("state", &[1], &[0.5])]),
    ];
    let plan = plan_of(&model, &given, &Options::default()).unwrap();
    assert_eq!(plan.runs(), 2);
    let second = plan.load(1, &[], false).unwrap();
    assert_eq!(second.tensors["x"].to_f32s().unwrap(), [2.0, 2.0]);
    assert_eq!(second.tensors["state"].to_f32s().unwrap(), [0.5]);
    assert!(second.frames[0].name.ends_with("b.npz"), "{}", second.frames[0].name);
}

#[test]
fn nothing_given_is_made_up() {
    let model = model(&[("images", DType::Float, &[-1, 3, -2, -3])]);
    let plan = plan_of(&model, &[], &Options { seed: Some(7), batch: Some(2) }).unwrap();
    let feed = plan.load(0, std::slice::from_ref(&model), true).unwrap();
    assert_eq!(feed.tensors["images"].dims(), [2, 3, 320, 320]);
    assert_eq!(feed.frames.iter().map(|frame| frame.name.as_str()).collect::<Vec<_>>(), ["seed 7[0]", "seed 7[1]"]);
    assert_eq!(feed.frames[1].picture.as_ref().unwrap().dimensions(), (320, 320));
}

#[test]
fn pictures_and_a_spread_array_go_run_by_run() {
    let folder = Folder::new();
    let model = model(&[("images", DType::Float, &[1, 3, 32, 32]), ("boxes", DType::Float, &[1, 4])]);
    let mut given: Vec<String> = (0..4).map(|i| folder.picture(&format!("{i}.png"), 32, 32, i * 60)).collect();
    let values: Vec<f32> = (0..16).map(|i| i as f32).collect();
    given.push(folder.arrays("boxes.npz", &[Tensor::from_f32("boxes", &[4, 4], &values)]));
    let plan = plan_of(&model, &given, &Options::default()).unwrap();
    assert_eq!((plan.runs(), plan.pictures()), (4, 4));
    let feed = plan.load(3, std::slice::from_ref(&model), false).unwrap();
    assert_eq!(feed.tensors["boxes"].to_f32s().unwrap(), values[12..]);
    assert_eq!((feed.tensors["images"].dims(), feed.frames.len()), (&[1, 3, 32, 32][..], 1));
    assert!(feed.frames[0].name.ends_with("3.png"));
}

#[test]
fn a_picture_that_is_all_length_is_refused_not_blown_up() {
    let folder = Folder::new();
    let model = model(&[("images", DType::Float, &[1, 3, -1, 640])]);
    let plan = plan_of(&model, &[folder.picture("thread.png", 1, 20_000, 9)], &Options::default()).unwrap();
    let said = plan.load(0, std::slice::from_ref(&model), false).unwrap_err().to_string();
    assert!(said.contains("1 x 20000") && said.contains("--shape"), "{said}");
}
