//! LSTM and GRU in float64: written out, step after step.
//!
//! Source: the formulas of the ONNX operators LSTM and GRU (https://onnx.ai/onnx/operators/).

use super::convert::Write;
use super::function::FUNCTION;
use crate::engine::emulate::DOMAIN;
use crate::graph::{AttributeValue, Node, ValueId};

/// More steps than this are not written out: a graph of so many nodes takes minutes to compile.
const MOST_STEPS: i64 = 256;

/// What a step needs of one direction.
struct Direction {
    /// Inputs times their weights, their bias added: `[steps, batch, gates * hidden]`.
    fed: ValueId,
    /// Weights of the state: `[hidden, gates * hidden]`.
    recurrent: ValueId,
    /// Bias of the state, `[gates * hidden]`.
    bias: Option<ValueId>,
}

impl Write<'_> {
    /// Writes an LSTM or a GRU of a known number of steps. `None` for what is not written out here: lengths of their own,
    /// peepholes, other activations than the default, clipping, the batch first.
    pub(super) fn unrolled(&mut self, node: &Node, opset: i64) -> Option<()> {
        let lstm = node.is("LSTM");
        let x = node.input(0)?;
        let (steps, hidden) = (*self.graph.value(x).static_shape()?.first()?, node.int("hidden_size")?);
        let other = ["activations", "activation_alpha", "activation_beta", "clip"];
        let plain = other.iter().all(|name| node.attr(name).is_none());
        let switched = ["layout", "input_forget"].iter().any(|name| node.int(name).unwrap_or(0) != 0);
        let more = node.input(4).is_some() || node.input(7).is_some();
        if opset < 13 || !plain || switched || more || !(1..=MOST_STEPS).contains(&steps) {
            return None;
        }
        let reversed: &[bool] = match node.string("direction").unwrap_or("forward") {
            "forward" => &[false],
            "reverse" => &[true],
            "bidirectional" => &[false, true],
            _ => return None,
        };
        let (mut all, mut states, mut cells) = (Vec::new(), Vec::new(), Vec::new());
        for (index, &reversed) in reversed.iter().enumerate() {
            let gates = if lstm { 4 } else { 3 };
            let direction = self.direction(node, index as i64, gates * hidden)?;
            let mut state = self.begin(node.input(5), index as i64, direction.fed, hidden);
            let mut cell =
                if lstm { Some(self.begin(node.input(6), index as i64, direction.fed, hidden)) } else { None };
            let mut made = vec![state; steps as usize];
            for step in 0..steps {
                let step = if reversed { steps - 1 - step } else { step };
                let fed = self.pick(direction.fed, step);
                state = match &mut cell {
                    Some(cell) => self.lstm_step(&direction, fed, state, cell, hidden),
                    None => {
                        let late = node.int("linear_before_reset").unwrap_or(0) != 0;
                        self.gru_step(&direction, fed, state, hidden, late)
                    }
                };
                made[step as usize] = self.unsqueezed(state, 0);
            }
            let joined = self.joined(&made, 0);
            all.push(self.unsqueezed(joined, 1));
            states.push(self.unsqueezed(state, 0));
            cells.extend(cell.map(|cell| self.unsqueezed(cell, 0)));
        }
        for (index, (list, axis)) in [(all, 1), (states, 0), (cells, 0)].into_iter().enumerate() {
            if let Some(out) = node.output(index) {
                let joined = self.joined(&list, axis);
                self.last("Identity", &[joined], out);
            }
        }
        Some(())
    }

    fn direction(&mut self, node: &Node, index: i64, width: i64) -> Option<Direction> {
        let turned = |write: &mut Self, weights: ValueId| {
            let one = write.pick(weights, index);
            write.with(Node::new("Transpose", [one], []).with("perm", vec![1i64, 0]))
        };
        let input = turned(self, node.input(1)?);
        let recurrent = turned(self, node.input(2)?);
        let mut fed = self.op("MatMul", &[node.input(0)?, input]);
        let mut bias = None;
        if let Some(both) = node.input(3) {
            let both = self.pick(both, index);
            let first = self.cut(both, 0, 0, width);
            fed = self.op("Add", &[fed, first]);
            bias = Some(self.cut(both, 0, width, 2 * width));
        }
        Some(Direction { fed, recurrent, bias })
    }

    /// The state before the first step: the one that is given, or noughts.
    fn begin(&mut self, given: Option<ValueId>, index: i64, fed: ValueId, hidden: i64) -> ValueId {
        if let Some(given) = given {
            return self.pick(given, index);
        }
        let some = self.pick(fed, 0);
        let some = self.cut(some, 1, 0, hidden);
        let zero = self.number(0.0);
        self.op("Mul", &[some, zero])
    }

    /// Gates in the order i, o, f, c.
    fn lstm_step(&mut self, of: &Direction, fed: ValueId, state: ValueId, cell: &mut ValueId, hidden: i64) -> ValueId {
        let by_state = self.state_sums(of, state);
        let sums = self.op("Add", &[fed, by_state]);
        let [input, output, forget, candidate] =
            [0, 1, 2, 3].map(|gate| self.cut(sums, 1, gate * hidden, (gate + 1) * hidden));
        let [input, output, forget] = [input, output, forget].map(|gate| self.sigmoid(gate));
        let candidate = self.op("Tanh", &[candidate]);
        let (kept, new) = (self.op("Mul", &[forget, *cell]), self.op("Mul", &[input, candidate]));
        *cell = self.op("Add", &[kept, new]);
        let shown = self.op("Tanh", &[*cell]);
        self.op("Mul", &[output, shown])
    }

    /// Gates in the order z, r, h.
    fn gru_step(&mut self, of: &Direction, fed: ValueId, state: ValueId, hidden: i64, late: bool) -> ValueId {
        let by_state = self.state_sums(of, state);
        let [update, reset] = [0, 1].map(|gate| {
            let cut = |write: &mut Self, sums| write.cut(sums, 1, gate * hidden, (gate + 1) * hidden);
            let (a, b) = (cut(self, fed), cut(self, by_state));
            let sum = self.op("Add", &[a, b]);
            self.sigmoid(sum)
        });
        let seen = if late {
            let third = self.cut(by_state, 1, 2 * hidden, 3 * hidden);
            self.op("Mul", &[reset, third])
        } else {
            let less = self.op("Mul", &[reset, state]);
            let product = self.state_sums(of, less);
            self.cut(product, 1, 2 * hidden, 3 * hidden)
        };
        let fed = self.cut(fed, 1, 2 * hidden, 3 * hidden);
        let sum = self.op("Add", &[fed, seen]);
        let candidate = self.op("Tanh", &[sum]);
        // candidate + update * (state - candidate)
        let change = self.op("Sub", &[state, candidate]);
        let part = self.op("Mul", &[update, change]);
        self.op("Add", &[candidate, part])
    }

    /// The state times its weights, its bias added.
    fn state_sums(&mut self, of: &Direction, state: ValueId) -> ValueId {
        let product = self.op("MatMul", &[state, of.recurrent]);
        of.bias.map_or(product, |bias| self.op("Add", &[product, bias]))
    }

    fn sigmoid(&mut self, x: ValueId) -> ValueId {
        let mut node = Node::new(FUNCTION, [x], []);
        node.domain = DOMAIN.into();
        for (name, value) in [("of", "Sigmoid"), ("alpha", "0"), ("beta", "0")] {
            node.set_attr(name, AttributeValue::String(value.as_bytes().to_vec().into()));
        }
        self.with(node)
    }

    /// One element of the first axis, which goes.
    fn pick(&mut self, x: ValueId, index: i64) -> ValueId {
        let index = self.graph.add_initializer(crate::onnx::Tensor::from_i64("index", &[], &[index]));
        self.with(Node::new("Gather", [x, index], []).with("axis", 0))
    }

    fn cut(&mut self, x: ValueId, axis: i64, begin: i64, end: i64) -> ValueId {
        let [begin, end, axis] = [begin, end, axis].map(|number| self.whole_numbers(&[number]));
        self.op("Slice", &[x, begin, end, axis])
    }

    fn unsqueezed(&mut self, x: ValueId, axis: i64) -> ValueId {
        let axes = self.whole_numbers(&[axis]);
        self.op("Unsqueeze", &[x, axes])
    }

    fn joined(&mut self, list: &[ValueId], axis: i64) -> ValueId {
        self.with(Node::new("Concat", list.iter().copied(), []).with("axis", axis))
    }
}
