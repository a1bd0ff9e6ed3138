//! libnrt, the runtime of Neuron devices, opened when it is needed.
//!
//! The functions and structures are those of the SDK's `nrt.h`, as its documentation gives them. A model is loaded on a
//! core; for each run the inputs are written to tensors on the device, the model is executed, and the outputs are read.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use libloading::Library;

use super::NAME;
use crate::engine::EngineError;

/// The library to open, over those that are looked for.
pub const LIBRARY: &str = "PORTER_LIBNRT";
/// Where the SDK puts it.
const PLACES: [&str; 2] = ["/opt/aws/neuron/lib/libnrt.so.1", "libnrt.so.1"];
/// The runtime's settings for how many physical cores make a logical one: today's name and an older one. Its own default
/// on trn2 is 2, and a module that was compiled for another number does not load (N12).
const LOGICAL: [&str; 2] = ["NEURON_LOGICAL_NC_CONFIG", "NEURON_RT_VIRTUAL_CORE_SIZE"];
/// `NRT_FRAMEWORK_TYPE_NO_FW`: no framework of the SDK's stands behind the calls.
const NO_FRAMEWORK: c_int = 1;
/// How many cores `nrt_load` takes: the header keeps the argument and says to leave it to the module.
const ONE_CORE: i32 = -1;
/// `NRT_TENSOR_PLACEMENT_DEVICE`.
const ON_DEVICE: c_int = 0;
/// `NRT_TENSOR_USAGE_INPUT`; what is no input is an output.
const INPUT: c_int = 0;

type Status = c_int;
type Handle = *mut c_void;

/// `nrt_tensor_info_t`.
#[repr(C)]
struct TensorInfo {
    name: [c_char; 256],
    usage: c_int,
    size: usize,
    dtype: c_int,
    shape: *mut u32,
    rank: u32,
}

/// `nrt_tensor_info_array_t`: a count with that many entries behind it.
#[repr(C)]
struct TensorInfos {
    count: u64,
    first: [TensorInfo; 0],
}

/// The entry points that are used.
struct Calls {
    init: unsafe extern "C" fn(c_int, *const c_char, *const c_char) -> Status,
    close: unsafe extern "C" fn(),
    visible_cores: unsafe extern "C" fn(*mut u32) -> Status,
    load: unsafe extern "C" fn(*const c_void, usize, i32, i32, *mut Handle) -> Status,
    unload: unsafe extern "C" fn(Handle) -> Status,
    tensor_infos: unsafe extern "C" fn(Handle, *mut *mut TensorInfos) -> Status,
    free_tensor_infos: unsafe extern "C" fn(*mut TensorInfos) -> Status,
    allocate_set: unsafe extern "C" fn(*mut Handle) -> Status,
    destroy_set: unsafe extern "C" fn(*mut Handle),
    add_to_set: unsafe extern "C" fn(Handle, *const c_char, Handle) -> Status,
    allocate: unsafe extern "C" fn(c_int, c_int, usize, *const c_char, *mut Handle) -> Status,
    free: unsafe extern "C" fn(*mut Handle),
    write: unsafe extern "C" fn(Handle, *const c_void, usize, usize) -> Status,
    read: unsafe extern "C" fn(Handle, *mut c_void, usize, usize) -> Status,
    execute: unsafe extern "C" fn(Handle, Handle, Handle) -> Status,
}

/// The runtime, initialised; closed when the last model on it is gone.
pub struct Runtime {
    calls: Calls,
    /// Whether it started: what did not start is not closed.
    started: bool,
    /// Keeps the functions where they are.
    _library: Library,
}

/// The runtimes of this process. One is started and closed once, however many engines use it.
static OPEN: Mutex<Vec<(PathBuf, Weak<Runtime>)>> = Mutex::new(Vec::new());

impl Runtime {
    /// Opens and initialises the runtime: the library that is named, what [`LIBRARY`] says, or where the SDK puts it. Its
    /// logical cores are made of `lnc` physical ones, as the modules are compiled for. Where it is open already, that one is
    /// given.
    ///
    /// # Errors
    /// [`EngineError::Absent`] where it is not there, lacks a function, does not start, or is set to other logical cores.
    pub fn open(named: Option<PathBuf>, lnc: i32) -> Result<Arc<Self>, EngineError> {
        let set = std::env::var_os(LIBRARY).filter(|set| !set.is_empty()).map(PathBuf::from);
        let places: Vec<PathBuf> = match named.or(set) {
            Some(one) => vec![one],
            None => PLACES.iter().map(PathBuf::from).collect(),
        };
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(_, runtime)| runtime.strong_count() > 0);
        let known = open.iter().find(|(place, _)| places.contains(place)).and_then(|(_, runtime)| runtime.upgrade());
        if let Some(runtime) = known {
            return Ok(runtime);
        }
        let absent = |problem: String| EngineError::Absent {
            engine: NAME.into(),
            problem,
            fix: format!(
                "Install the AWS Neuron runtime on a Trainium or Inferentia host, or set {LIBRARY}; `--stand-in xla` runs the same module on the CPU"
            ),
        };
        set_logical(lnc).map_err(absent)?;
        let mut problem = String::new();
        for place in places {
            // SAFETY: opening a library runs its initialisers; the user names it, or it is the SDK's own.
            match unsafe { Library::new(&place) } {
                Ok(library) => {
                    let mut runtime =
                        Self::of(library).map_err(|missing| absent(format!("{}: {missing}", place.display())))?;
                    // SAFETY: the strings end in 0 and outlive the call.
                    let status = unsafe { (runtime.calls.init)(NO_FRAMEWORK, c"".as_ptr(), c"".as_ptr()) };
                    if status != 0 {
                        return Err(absent(format!("nrt_init failed: {}", meaning(status))));
                    }
                    runtime.started = true;
                    let runtime = Arc::new(runtime);
                    open.push((place, Arc::downgrade(&runtime)));
                    return Ok(runtime);
                }
                Err(error) => problem = format!("{} does not open: {error}", place.display()),
            }
        }
        Err(absent(problem))
    }

    fn of(library: Library) -> Result<Self, libloading::Error> {
        // SAFETY: names and types are those of nrt.h; the pointers are kept no longer than the library.
        unsafe {
            let calls = Calls {
                init: *library.get(b"nrt_init\0")?,
                close: *library.get(b"nrt_close\0")?,
                visible_cores: *library.get(b"nrt_get_visible_nc_count\0")?,
                load: *library.get(b"nrt_load\0")?,
                unload: *library.get(b"nrt_unload\0")?,
                tensor_infos: *library.get(b"nrt_get_model_tensor_info\0")?,
                free_tensor_infos: *library.get(b"nrt_free_model_tensor_info\0")?,
                allocate_set: *library.get(b"nrt_allocate_tensor_set\0")?,
                destroy_set: *library.get(b"nrt_destroy_tensor_set\0")?,
                add_to_set: *library.get(b"nrt_add_tensor_to_tensor_set\0")?,
                allocate: *library.get(b"nrt_tensor_allocate\0")?,
                free: *library.get(b"nrt_tensor_free\0")?,
                write: *library.get(b"nrt_tensor_write\0")?,
                read: *library.get(b"nrt_tensor_read\0")?,
                execute: *library.get(b"nrt_execute\0")?,
            };
            Ok(Self { calls, started: false, _library: library })
        }
    }

    /// How many logical cores this process may use: what the runtime says.
    ///
    /// # Errors
    /// It says none.
    pub fn cores(&self) -> Result<usize, EngineError> {
        let mut count = 0;
        // SAFETY: the pointer is to a number of our own.
        let status = unsafe { (self.calls.visible_cores)(&mut count) };
        match (status, count) {
            (0, 1..) => Ok(count as usize),
            (0, _) => Err(failed("nrt_get_visible_nc_count", "there is no core".into())),
            (status, _) => Err(failed("nrt_get_visible_nc_count", meaning(status))),
        }
    }

    /// Loads a compiled module on a logical core.
    ///
    /// # Errors
    /// The file does not read, or does not load.
    pub fn load(self: &Arc<Self>, neff: &Path, core: i32) -> Result<Loaded, EngineError> {
        let bytes = std::fs::read(neff).map_err(|error| failed("reading the NEFF", error.to_string()))?;
        let mut model = std::ptr::null_mut();
        // SAFETY: the bytes live through the call, the pointer is to a handle of our own.
        let status = unsafe { (self.calls.load)(bytes.as_ptr().cast(), bytes.len(), core, ONE_CORE, &mut model) };
        check("nrt_load", status)?;
        let mut loaded = Loaded { runtime: self.clone(), model, core, inputs: Vec::new(), outputs: Vec::new() };
        loaded.ports()?;
        Ok(loaded)
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if self.started {
            // SAFETY: initialised, and every model on it is gone, since each holds it.
            unsafe { (self.calls.close)() }
        }
    }
}

/// A tensor that a model takes or gives.
struct Port {
    name: CString,
    size: usize,
}

/// A model on a core.
pub struct Loaded {
    runtime: Arc<Runtime>,
    model: Handle,
    core: i32,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
}

// SAFETY: a handle may be used from any thread, one at a time, which `&mut self` sees to.
unsafe impl Send for Loaded {}

impl Loaded {
    /// Asks what the model takes and gives. The compiler numbers both (`input0`, `output0`, ...) in the module's order.
    fn ports(&mut self) -> Result<(), EngineError> {
        let calls = &self.runtime.calls;
        let mut infos = std::ptr::null_mut();
        // SAFETY: the model is loaded, the pointer is to one of our own.
        check("nrt_get_model_tensor_info", unsafe { (calls.tensor_infos)(self.model, &mut infos) })?;
        // SAFETY: the runtime gave `count` entries behind the count, with names that end in 0.
        let (inputs, outputs) = unsafe {
            let first = (&raw const (*infos).first).cast::<TensorInfo>();
            let entries = std::slice::from_raw_parts(first, (*infos).count as usize);
            let port = |info: &TensorInfo| Port { name: CStr::from_ptr(info.name.as_ptr()).into(), size: info.size };
            let (inputs, outputs): (Vec<_>, Vec<_>) = entries.iter().partition(|info| info.usage == INPUT);
            let all = |list: Vec<&TensorInfo>| list.into_iter().map(port).collect::<Vec<Port>>();
            (all(inputs), all(outputs))
        };
        // SAFETY: given by the runtime just now, and not used after.
        unsafe { (calls.free_tensor_infos)(infos) };
        self.inputs = inputs;
        self.outputs = outputs;
        for list in [&mut self.inputs, &mut self.outputs] {
            list.sort_by_key(|port| number(&port.name));
        }
        Ok(())
    }

    /// Runs the model: bytes in the order of its inputs in, bytes in the order of its outputs out.
    ///
    /// # Errors
    /// The module takes or gives other sizes, or a call fails.
    pub fn execute(&mut self, inputs: &[Bytes], outputs: &[usize]) -> Result<Vec<Bytes>, EngineError> {
        fits("input", &self.inputs, inputs.iter().map(Bytes::len))?;
        fits("output", &self.outputs, outputs.iter().copied())?;
        let calls = &self.runtime.calls;
        let given = Set::new(calls, &self.inputs, self.core)?;
        for (tensor, bytes) in given.tensors.iter().zip(inputs) {
            // SAFETY: the tensor is as large as the bytes.
            check("nrt_tensor_write", unsafe { (calls.write)(*tensor, bytes.as_ptr().cast(), 0, bytes.len()) })?;
        }
        let got = Set::new(calls, &self.outputs, self.core)?;
        // SAFETY: the model is loaded, the sets hold its tensors.
        check("nrt_execute", unsafe { (calls.execute)(self.model, given.handle, got.handle) })?;
        let mut results = Vec::new();
        for (tensor, &size) in got.tensors.iter().zip(outputs) {
            let mut bytes = vec![0u8; size];
            // SAFETY: the tensor is as large as the buffer.
            check("nrt_tensor_read", unsafe { (calls.read)(*tensor, bytes.as_mut_ptr().cast(), 0, size) })?;
            results.push(bytes.into());
        }
        Ok(results)
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        // SAFETY: loaded, and not used after.
        unsafe { (self.runtime.calls.unload)(self.model) };
    }
}

/// Tensors on the device, in a set.
struct Set<'a> {
    calls: &'a Calls,
    handle: Handle,
    tensors: Vec<Handle>,
}

impl<'a> Set<'a> {
    fn new(calls: &'a Calls, ports: &[Port], core: i32) -> Result<Self, EngineError> {
        let mut handle = std::ptr::null_mut();
        // SAFETY: the pointer is to a handle of our own.
        check("nrt_allocate_tensor_set", unsafe { (calls.allocate_set)(&mut handle) })?;
        let mut set = Self { calls, handle, tensors: Vec::new() };
        for port in ports {
            let mut tensor = std::ptr::null_mut();
            // SAFETY: the name lives as long as the model, the pointer is to a handle of our own.
            let status = unsafe { (calls.allocate)(ON_DEVICE, core, port.size, port.name.as_ptr(), &mut tensor) };
            check("nrt_tensor_allocate", status)?;
            set.tensors.push(tensor);
            // SAFETY: set and tensor were made just now.
            let status = unsafe { (calls.add_to_set)(set.handle, port.name.as_ptr(), tensor) };
            check("nrt_add_tensor_to_tensor_set", status)?;
        }
        Ok(set)
    }
}

impl Drop for Set<'_> {
    fn drop(&mut self) {
        // SAFETY: made in `new`, and not used after; the set goes before its tensors.
        unsafe {
            (self.calls.destroy_set)(&mut self.handle);
            self.tensors.iter_mut().for_each(|tensor| (self.calls.free)(tensor));
        }
    }
}

fn fits(what: &str, ports: &[Port], sizes: impl ExactSizeIterator<Item = usize>) -> Result<(), EngineError> {
    let found: Vec<usize> = ports.iter().map(|port| port.size).collect();
    let wanted: Vec<usize> = sizes.collect();
    if found == wanted {
        return Ok(());
    }
    Err(failed("nrt_get_model_tensor_info", format!("{what}s of {found:?} bytes, and the module has {wanted:?}")))
}

/// The number that a name ends in; names without one come last, in their own order.
fn number(name: &CStr) -> usize {
    let text = name.to_string_lossy();
    let digits = text.len() - text.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    text[text.len() - digits..].parse().unwrap_or(usize::MAX)
}

/// Sets the size of logical cores for the runtime, unless the user has. A user's own setting must be the same.
fn set_logical(lnc: i32) -> Result<(), String> {
    let lnc = lnc.max(1).to_string();
    for name in LOGICAL {
        match std::env::var(name) {
            Ok(set) if set == lnc => return Ok(()),
            Ok(set) => {
                return Err(format!(
                    "{name} is {set}, and the module is compiled with --lnc {lnc}: it would not load (N12)"
                ));
            }
            Err(_) => {}
        }
    }
    // SAFETY: porter opens the runtime in a process of its own, in which no other thread reads the environment yet.
    unsafe { std::env::set_var(LOGICAL[0], lnc) };
    Ok(())
}

fn check(call: &str, status: Status) -> Result<(), EngineError> {
    if status == 0 { Ok(()) } else { Err(failed(call, meaning(status))) }
}

fn failed(call: &str, problem: String) -> EngineError {
    EngineError::Run { engine: NAME.into(), code: None, problem: format!("{call}: {problem}") }
}

/// What the runtime's status means, as its documentation says.
fn meaning(status: Status) -> String {
    let known = match status {
        1 => "failure",
        2 => "invalid argument",
        3 => "invalid handle",
        4 => "out of resources",
        5 => "timed out",
        6 => "hardware error",
        7 => "queue full",
        9 => "there are not as many free cores as the module takes",
        10 => "the runtime does not take this version of the NEFF",
        11 => "the host has no memory left",
        13 => "uninitialised",
        14 => "closed",
        101 => "the execution unit does not recover; the process must end",
        1002 => "the model was executed with wrong inputs",
        1003 => "it ran, with numerical errors: a result is NaN",
        1004 => "it ran, with errors",
        1005 => "the core is busy",
        1006 => "an index is out of bounds",
        1200..=1299 => "hardware error while executing",
        _ => return format!("status {status}"),
    };
    format!("status {status}, {known}")
}
