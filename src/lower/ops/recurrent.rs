//! Recurrent layers.
//!
//! ONNX: RNN, GRU, LSTM (opset 7 and later): directions, both layouts, lengths of their own, initial states, peepholes,
//! clip, input_forget, linear_before_reset, every activation. HLO: one dot for what the inputs give to all steps, then a
//! step of dot and elementwise instructions, written out up to [`UNROLLED`] steps and in a while loop beyond.

use super::Problem;
use super::activation::{elu, hard_sigmoid, leaky, softplus};
use crate::graph::AttributeValue;
use crate::lower::call::{Call, Lowered};
use crate::lower::hlo::{Builder, Direction, DotDims, Op, Shape, Unary};
use crate::onnx::DType;

/// Sequences of up to this many steps are written out; a loop is for longer ones.
const UNROLLED: i64 = 64;

/// What a layer is, apart from its weights.
struct Cell {
    kind: Kind,
    hidden: i64,
    clip: Option<f64>,
    input_forget: bool,
    linear_before_reset: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Rnn,
    Gru,
    Lstm,
}

impl Kind {
    fn gates(self) -> i64 {
        match self {
            Kind::Rnn => 1,
            Kind::Gru => 3,
            Kind::Lstm => 4,
        }
    }

    /// How many activations a direction has, and which where none are named.
    fn activations(self) -> &'static [&'static str] {
        match self {
            Kind::Rnn => &["Tanh"],
            Kind::Gru => &["Sigmoid", "Tanh"],
            Kind::Lstm => &["Sigmoid", "Tanh", "Tanh"],
        }
    }
}

/// An activation with its parameters.
#[derive(Clone)]
struct Activation {
    name: String,
    alpha: f64,
    beta: f64,
}

/// One direction's tensors: what stays the same over all steps.
struct Weights {
    /// `[hidden, gates * hidden]`.
    recurrence: Op,
    /// GRU: what is added to the hidden gate before it is reset, `[hidden]`.
    reset_bias: Option<Op>,
    /// LSTM: input, output and forget peepholes, `[3, hidden]`.
    peepholes: Option<Op>,
    /// How long each sequence is, `[batch]`.
    lengths: Option<Op>,
}

/// RNN, GRU and LSTM.
pub fn recurrent(call: &mut Call) -> Lowered {
    let kind = match call.node.op_type.as_str() {
        "RNN" => Kind::Rnn,
        "GRU" => Kind::Gru,
        _ => Kind::Lstm,
    };
    let mut x = call.input(0)?;
    let batch_first = call.int("layout", 0) != 0;
    if batch_first {
        x = call.b.transpose(x, &[1, 0, 2]);
    }
    let (dims, weights) = (call.b.dims(x), call.dims(2)?);
    let (&[steps, batch, _], &[directions, _, hidden]) = (dims.as_slice(), weights.as_slice()) else {
        return Err("its inputs need 3 dimensions".into());
    };
    let cell = Cell {
        kind,
        hidden,
        clip: call.node.float("clip").map(f64::from),
        input_forget: call.int("input_forget", 0) != 0,
        linear_before_reset: call.int("linear_before_reset", 0) != 0,
    };
    let names = activations(call, kind, directions as usize)?;
    let direction = call.text("direction", "forward");
    let lengths = call.optional(4)?;
    let mut outputs: Vec<(Op, State)> = Vec::new();
    for index in 0..directions {
        let backwards = direction == "reverse" || index == 1;
        let row = |call: &mut Call, input: usize| -> Result<Option<Op>, Problem> {
            let Some(mut op) = call.optional(input)? else { return Ok(None) };
            if batch_first && (input == 5 || input == 6 && kind == Kind::Lstm) {
                op = call.b.transpose(op, &[1, 0, 2]);
            }
            let kept = call.b.dims(op);
            let one = call.b.slice_axis(op, 0, index, index + 1);
            Ok(Some(call.b.reshape(one, &kept[1..])))
        };
        let input_weights = row(call, 1)?.ok_or("its weights are missing")?;
        let recurrence = row(call, 2)?.ok_or("its weights are missing")?;
        let bias = row(call, 3)?;
        let first = row(call, 5)?;
        let first_cell = if kind == Kind::Lstm { row(call, 6)? } else { None };
        let peepholes = if kind == Kind::Lstm { row(call, 7)? } else { None };
        let b = &mut *call.b;
        let dtype = b.dtype(x);
        let wide = cell.kind.gates() * hidden;
        let over =
            |left: i64| DotDims { left_contracting: vec![left], right_contracting: vec![1], ..Default::default() };
        let mut given = b.dot(x, input_weights, over(2));
        let mut reset_bias = None;
        if let Some(bias) = bias {
            let (own, mut other) = (b.slice(bias, &[0], &[wide], &[1]), b.slice(bias, &[wide], &[2 * wide], &[1]));
            if kind == Kind::Gru && cell.linear_before_reset {
                // The hidden gate's bias is added inside of what is reset.
                reset_bias = Some(b.slice(other, &[2 * hidden], &[3 * hidden], &[1]));
                let zero = b.scalar(dtype, 0.0);
                let kept = b.slice(other, &[0], &[2 * hidden], &[1]);
                other = b.pad(kept, zero, &[0], &[hidden], &[0]);
            }
            let sum = b.add(own, other);
            given = b.add(given, sum);
        }
        let zero = Shape::new(dtype, [batch, hidden]);
        let h = first.unwrap_or_else(|| b.full(zero.clone(), 0.0));
        let c = (kind == Kind::Lstm).then(|| first_cell.unwrap_or_else(|| b.full(zero, 0.0)));
        let recurrence = b.transpose(recurrence, &[1, 0]);
        let peepholes = peepholes.map(|p| b.reshape(p, &[3, hidden]));
        let weights = Weights { recurrence, reset_bias, peepholes, lengths };
        let count = kind.activations().len();
        let own = &names[index as usize * count..(index as usize + 1) * count];
        let run = Run { cell: &cell, activations: own, given, first: State { h, c }, steps, backwards };
        outputs.push(run.lower(b, &weights));
    }
    Ok(arrange(call, outputs, batch_first))
}

/// Joins the directions in the layout that was asked for.
fn arrange(call: &mut Call, outputs: Vec<(Op, State)>, batch_first: bool) -> Vec<Op> {
    let b = &mut *call.b;
    let join = |b: &mut Builder, parts: Vec<Op>, at: usize, perm: &[i64]| {
        let wide: Vec<Op> = parts
            .into_iter()
            .map(|part| {
                let mut dims = b.dims(part);
                dims.insert(at, 1);
                b.reshape(part, &dims)
            })
            .collect();
        let whole = b.concatenate(&wide, at);
        if batch_first { b.transpose(whole, perm) } else { whole }
    };
    let y = join(b, outputs.iter().map(|o| o.0).collect(), 1, &[2, 0, 1, 3]);
    let h = join(b, outputs.iter().map(|o| o.1.h).collect(), 0, &[1, 0, 2]);
    let mut made = vec![y, h];
    let cells: Vec<Op> = outputs.iter().filter_map(|o| o.1.c).collect();
    if !cells.is_empty() {
        made.push(join(b, cells, 0, &[1, 0, 2]));
    }
    made
}

/// What a layer carries from step to step.
#[derive(Clone, Copy)]
struct State {
    /// `[batch, hidden]`.
    h: Op,
    /// LSTM: as `h`.
    c: Option<Op>,
}

/// One direction of a layer over its sequence.
struct Run<'a> {
    cell: &'a Cell,
    activations: &'a [Activation],
    /// What the inputs give to every step, `[steps, batch, gates * hidden]`.
    given: Op,
    first: State,
    steps: i64,
    backwards: bool,
}

impl Run<'_> {
    /// All outputs `[steps, batch, hidden]`, and the state at the end.
    fn lower(&self, b: &mut Builder, weights: &Weights) -> (Op, State) {
        if self.steps <= UNROLLED { self.unrolled(b, weights) } else { self.looped(b, weights) }
    }

    /// The step at place `t` on what the inputs give it, `[1, batch, gates * hidden]`: the next state, and what is shown,
    /// `[1, batch, hidden]`.
    fn turn(&self, b: &mut Builder, slice: Op, state: State, weights: &Weights, t: Op) -> (State, Op) {
        let dims = b.dims(slice);
        let own = b.reshape(slice, &dims[1..]);
        let (next, shown) = self.cell.masked(b, self.activations, own, state, weights, t);
        let mut wide = b.dims(shown);
        wide.insert(0, 1);
        (next, b.reshape(shown, &wide))
    }

    /// Steps one after another.
    fn unrolled(&self, b: &mut Builder, weights: &Weights) -> (Op, State) {
        let mut state = self.first;
        let mut shown = Vec::with_capacity(self.steps as usize);
        for turn in 0..self.steps {
            let t = if self.backwards { self.steps - 1 - turn } else { turn };
            let slice = b.slice_axis(self.given, 0, t, t + 1);
            let place = b.scalar(DType::Int32, t as f64);
            let (next, output) = self.turn(b, slice, state, weights, place);
            state = next;
            shown.push(output);
        }
        if self.backwards {
            shown.reverse();
        }
        let y = match shown.is_empty() {
            true => self.blank(b),
            false => b.concatenate(&shown, 0),
        };
        (y, state)
    }

    /// As [`Run::unrolled`], in a loop.
    fn looped(&self, b: &mut Builder, weights: &Weights) -> (Op, State) {
        let y = self.blank(b);
        let turn = b.scalar(DType::Int32, 0.0);
        // What the body reads must be carried: an inner computation sees nothing else.
        let mut carried = vec![turn, self.first.h, y, self.given, weights.recurrence];
        let mut slot = |op: Option<Op>| {
            op.map(|op| {
                carried.push(op);
                carried.len() - 1
            })
        };
        let (at_c, at_bias) = (slot(self.first.c), slot(weights.reset_bias));
        let (at_peepholes, at_lengths) = (slot(weights.peepholes), slot(weights.lengths));
        let dims = b.dims(self.given);
        let done = b.while_loop(
            &carried,
            |b, values| {
                let end = b.scalar(DType::Int32, self.steps as f64);
                b.compare(Direction::Lt, values[0], end)
            },
            |b, values| {
                let mut next: Vec<Op> = values.to_vec();
                let held = |slot: Option<usize>| slot.map(|slot| values[slot]);
                let weights = Weights {
                    recurrence: values[4],
                    reset_bias: held(at_bias),
                    peepholes: held(at_peepholes),
                    lengths: held(at_lengths),
                };
                let t = match self.backwards {
                    false => values[0],
                    true => {
                        let last = b.full_like(values[0], (self.steps - 1) as f64);
                        b.sub(last, values[0])
                    }
                };
                let zero = b.scalar(DType::Int32, 0.0);
                let slice = b.dynamic_slice(values[3], &[t, zero, zero], &[1, dims[1], dims[2]]);
                let (state, shown) = self.turn(b, slice, State { h: values[1], c: held(at_c) }, &weights, t);
                next[0] = b.add_number(values[0], 1.0);
                next[1] = state.h;
                next[2] = b.dynamic_update_slice(values[2], shown, &[t, zero, zero]);
                if let (Some(slot), Some(c)) = (at_c, state.c) {
                    next[slot] = c;
                }
                next
            },
        );
        (done[2], State { h: done[1], c: at_c.map(|slot| done[slot]) })
    }

    /// Outputs before the first step.
    fn blank(&self, b: &mut Builder) -> Op {
        let mut dims = b.dims(self.first.h);
        dims.insert(0, self.steps);
        let dtype = b.dtype(self.first.h);
        b.full(Shape::new(dtype, dims), 0.0)
    }
}

impl Cell {
    /// One step; a sequence that is over keeps its state and shows zeros.
    fn masked(
        &self,
        b: &mut Builder,
        activations: &[Activation],
        own: Op,
        state: State,
        weights: &Weights,
        t: Op,
    ) -> (State, Op) {
        let next = self.step(b, activations, own, state, weights);
        let Some(lengths) = weights.lengths else { return (next, next.h) };
        let lengths = b.convert(lengths, DType::Int32);
        let dims = b.dims(state.h);
        let t = b.broadcast(t, &dims[..1], &[]);
        let running = b.compare(Direction::Lt, t, lengths);
        let running = b.along(running, &dims, 0);
        let zero = b.full_like(next.h, 0.0);
        let shown = b.select(running, next.h, zero);
        let h = b.select(running, next.h, state.h);
        let c = match (next.c, state.c) {
            (Some(next), Some(c)) => Some(b.select(running, next, c)),
            _ => next.c,
        };
        (State { h, c }, shown)
    }

    fn step(&self, b: &mut Builder, names: &[Activation], own: Op, state: State, weights: &Weights) -> State {
        let (n, h) = (self.hidden, state.h);
        let gate = |b: &mut Builder, x: Op, i: i64| b.slice_axis(x, 1, i * n, (i + 1) * n);
        let dot = |b: &mut Builder, x: Op, y: Op| {
            let dims = DotDims { left_contracting: vec![1], right_contracting: vec![0], ..Default::default() };
            b.dot(x, y, dims)
        };
        match (self.kind, state.c) {
            (Kind::Gru, _) => {
                let both = b.slice_axis(weights.recurrence, 1, 0, 2 * n);
                let hidden = b.slice_axis(weights.recurrence, 1, 2 * n, 3 * n);
                let given = b.slice_axis(own, 1, 0, 2 * n);
                let held = dot(b, h, both);
                let sum = b.add(given, held);
                let gates = self.apply(b, &names[0], sum);
                let (update, reset) = (gate(b, gates, 0), gate(b, gates, 1));
                let inner = if self.linear_before_reset {
                    let mut held = dot(b, h, hidden);
                    if let Some(bias) = weights.reset_bias {
                        held = b.add(held, bias);
                    }
                    b.mul(reset, held)
                } else {
                    let held = b.mul(reset, h);
                    dot(b, held, hidden)
                };
                let given = gate(b, own, 2);
                let sum = b.add(given, inner);
                let fresh = self.apply(b, &names[1], sum);
                let one = b.full_like(update, 1.0);
                let rest = b.sub(one, update);
                let (new, old) = (b.mul(rest, fresh), b.mul(update, h));
                State { h: b.add(new, old), c: None }
            }
            (Kind::Lstm, Some(c)) => {
                let held = dot(b, h, weights.recurrence);
                let sum = b.add(own, held);
                let [mut input, mut output, mut forget, fresh] = [0, 1, 2, 3].map(|i| gate(b, sum, i));
                let peephole = |b: &mut Builder, i: i64, c: Op| {
                    weights.peepholes.map(|p| {
                        let row = b.slice_axis(p, 0, i, i + 1);
                        b.mul(row, c)
                    })
                };
                if let Some(seen) = peephole(b, 0, c) {
                    input = b.add(input, seen);
                }
                if let Some(seen) = peephole(b, 2, c) {
                    forget = b.add(forget, seen);
                }
                let input = self.apply(b, &names[0], input);
                let forget = if self.input_forget {
                    let one = b.full_like(input, 1.0);
                    b.sub(one, input)
                } else {
                    self.apply(b, &names[0], forget)
                };
                let fresh = self.apply(b, &names[1], fresh);
                let (old, new) = (b.mul(forget, c), b.mul(input, fresh));
                let cell = b.add(old, new);
                if let Some(seen) = peephole(b, 1, cell) {
                    output = b.add(output, seen);
                }
                let output = self.apply(b, &names[0], output);
                let shown = activate(b, &names[2], cell);
                State { h: b.mul(output, shown), c: Some(cell) }
            }
            _ => {
                let held = dot(b, h, weights.recurrence);
                let sum = b.add(own, held);
                State { h: self.apply(b, &names[0], sum), c: None }
            }
        }
    }

    /// An activation of a gate, its input clipped first.
    fn apply(&self, b: &mut Builder, activation: &Activation, mut x: Op) -> Op {
        if let Some(clip) = self.clip {
            x = b.at_least(x, -clip);
            x = b.at_most(x, clip);
        }
        activate(b, activation, x)
    }
}

fn activate(b: &mut Builder, activation: &Activation, x: Op) -> Op {
    let (alpha, beta) = (activation.alpha, activation.beta);
    match activation.name.as_str() {
        "relu" => b.at_least(x, 0.0),
        "tanh" => b.tanh(x),
        "sigmoid" => b.logistic(x),
        "affine" => {
            let scaled = b.scale(x, alpha);
            b.add_number(scaled, beta)
        }
        "leakyrelu" => leaky(b, x, alpha),
        "thresholdedrelu" => {
            let (limit, zero) = (b.full_like(x, alpha), b.full_like(x, 0.0));
            let above = b.compare(Direction::Gt, x, limit);
            b.select(above, x, zero)
        }
        "scaledtanh" => {
            let scaled = b.scale(x, beta);
            let made = b.tanh(scaled);
            b.scale(made, alpha)
        }
        "hardsigmoid" => hard_sigmoid(b, x, alpha, beta),
        "elu" => elu(b, x, alpha, 1.0),
        "softsign" => {
            let size = b.unary(Unary::Abs, x);
            let below = b.add_number(size, 1.0);
            b.div(x, below)
        }
        "softplus" => softplus(b, x),
        other => {
            b.fail(|| format!("'{other}' is no activation of a recurrent layer"));
            x
        }
    }
}

/// The activations of all directions, with the parameters that they have when none are given.
fn activations(call: &Call, kind: Kind, directions: usize) -> Result<Vec<Activation>, Problem> {
    let wanted = kind.activations().len() * directions;
    let names: Vec<String> = match call.node.attr("activations") {
        Some(AttributeValue::Strings(list)) if !list.is_empty() => {
            list.iter().map(|name| String::from_utf8_lossy(name).to_lowercase()).collect()
        }
        _ => kind.activations().iter().cycle().take(wanted).map(|name| name.to_lowercase()).collect(),
    };
    if names.len() != wanted {
        return Err(format!("{} activations for {directions} directions", names.len()).into());
    }
    let list = |name: &str| match call.node.attr(name) {
        Some(AttributeValue::Floats(list)) => list.iter().map(|&x| f64::from(x)).collect(),
        _ => Vec::new(),
    };
    // Parameters are listed for those activations that have some, in order.
    let (mut alphas, mut betas) = (list("activation_alpha").into_iter(), list("activation_beta").into_iter());
    Ok(names
        .into_iter()
        .map(|name| {
            let (alpha, beta) = match name.as_str() {
                "leakyrelu" => (Some(0.01), None),
                "thresholdedrelu" | "elu" => (Some(1.0), None),
                "hardsigmoid" => (Some(0.2), Some(0.5)),
                "affine" | "scaledtanh" => (Some(1.0), Some(if name == "affine" { 0.0 } else { 1.0 })),
                _ => (None, None),
            };
            let alpha = alpha.map_or(0.0, |default| alphas.next().unwrap_or(default));
            let beta = beta.map_or(0.0, |default| betas.next().unwrap_or(default));
            Activation { name, alpha, beta }
        })
        .collect())
}
