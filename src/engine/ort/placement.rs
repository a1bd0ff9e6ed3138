//! Which nodes run where, as ONNX Runtime assigned them when it made the session.

use std::ffi::CStr;
use std::ptr;

use ort::AsPointer;
use ort::session::Session;

/// The name of the provider that runs what no other takes.
pub(super) const CPU: &str = "CPUExecutionProvider";
/// The session's setting that makes ONNX Runtime keep the assignment.
pub(super) const RECORD: (&str, &str) = ("session.record_ep_graph_assignment_info", "1");

/// A node and the provider that it was given to.
pub(super) struct Assigned {
    pub provider: String,
    pub node: String,
    pub op_type: String,
}

/// Every node of the main graph as it was when the nodes were assigned: after folding, before fusion.
pub(super) fn assigned(session: &Session) -> Result<Vec<Assigned>, String> {
    let api = ort::api();
    let told = |error: ort::Error| error.message().to_string();
    let mut found = Vec::new();
    // SAFETY: ONNX Runtime fills in pointers to arrays and texts that belong to the session, which outlives this
    // function; texts are copied at once.
    unsafe {
        let checked = |status| ort::Error::result_from_status(status).map_err(told);
        let text = |pointer: *const std::ffi::c_char| match pointer.is_null() {
            true => String::new(),
            false => CStr::from_ptr(pointer).to_string_lossy().into_owned(),
        };
        let (mut subgraphs, mut count) = (ptr::null(), 0);
        checked((api.Session_GetEpGraphAssignmentInfo)(session.ptr(), &mut subgraphs, &mut count))?;
        for index in 0..count {
            let subgraph = *subgraphs.add(index);
            let mut provider = ptr::null();
            checked((api.EpAssignedSubgraph_GetEpName)(subgraph, &mut provider))?;
            let provider = text(provider);
            let (mut nodes, mut count) = (ptr::null(), 0);
            checked((api.EpAssignedSubgraph_GetNodes)(subgraph, &mut nodes, &mut count))?;
            for index in 0..count {
                let node = *nodes.add(index);
                let (mut name, mut op_type) = (ptr::null(), ptr::null());
                checked((api.EpAssignedNode_GetName)(node, &mut name))?;
                checked((api.EpAssignedNode_GetOperatorType)(node, &mut op_type))?;
                found.push(Assigned { provider: provider.clone(), node: text(name), op_type: text(op_type) });
            }
        }
    }
    Ok(found)
}
