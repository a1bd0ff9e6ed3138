//! Working out a replacement for a match: which nodes, with which attributes and constants. Nothing here touches the
//! graph; a plan that can be carried out is carried out by [`super::place`].

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use cel::Value as CelValue;

use super::expr::{Expression, ExpressionError, Outcome, Scope};
use super::matching::{Bound, Match, MatchScope, Search};
use super::operators;
use super::template::{Statement, Template, TemplateInput, TemplateNode, TemplateOutput, TemplateValue, element_type};
use crate::graph::{Attribute, AttributeValue, NodeId, ValueId};
use crate::onnx::{DType, Tensor};

/// What a planned node reads or writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Operand {
    Nothing,
    Existing(ValueId),
    Fresh(usize),
    Constant(usize),
}

#[derive(Debug)]
pub(super) struct Draft {
    /// Place in the match of the node whose name it takes.
    pub(super) named_after: Option<usize>,
    pub(super) operator: String,
    pub(super) domain: String,
    pub(super) attributes: Vec<Attribute>,
    pub(super) inputs: Vec<Operand>,
    pub(super) outputs: Vec<Operand>,
}

/// A replacement, worked out.
#[derive(Debug, Default)]
pub struct Plan {
    pub(super) drafts: Vec<Draft>,
    pub(super) constants: Vec<Arc<Tensor>>,
    fresh: usize,
    pub(super) aliases: Vec<(ValueId, Operand)>,
}

/// More nodes than this for one match is a rule gone wrong.
const LARGEST: usize = 4096;

/// Works out a replacement; none where it cannot be said for this match, because a size is unknown or the opset has no
/// words for it.
pub fn plan(search: &Search, found: &Match, template: &Template) -> Result<Option<Plan>, ExpressionError> {
    let mut planner = Planner {
        scope: MatchScope { search, found },
        template,
        locals: HashMap::new(),
        assigned: HashMap::new(),
        plan: Plan::default(),
    };
    match planner.run(&template.body) {
        Ok(()) => Ok(planner.plan.settle(search.graph)),
        Err(Stop::Refused) => Ok(None),
        Err(Stop::Wrong(error)) => Err(error),
    }
}

/// The matched nodes that the replacement does without.
pub fn removed(found: &Match, template: &Template) -> Vec<NodeId> {
    found.nodes.iter().enumerate().filter(|(index, _)| !template.kept.contains(index)).map(|(_, id)| *id).collect()
}

enum Stop {
    /// Not for this match.
    Refused,
    /// The rule makes no sense.
    Wrong(ExpressionError),
}

#[derive(Clone)]
enum Local {
    Computed(CelValue),
    Operand(Operand),
}

struct Planner<'a> {
    scope: MatchScope<'a>,
    template: &'a Template,
    locals: HashMap<String, Local>,
    assigned: HashMap<String, Vec<Operand>>,
    plan: Plan,
}

impl Scope for Planner<'_> {
    fn variable(&self, name: &str, fields: &BTreeSet<String>) -> Option<CelValue> {
        match self.locals.get(name) {
            Some(Local::Computed(value)) => Some(value.clone()),
            // Nothing is known yet of a value that is only being planned.
            Some(Local::Operand(_)) => self.scope.variable(name, fields).or_else(|| {
                Some(CelValue::from(
                    fields.iter().map(|field| (field.clone(), CelValue::Null)).collect::<HashMap<_, _>>(),
                ))
            }),
            None => self.scope.variable(name, fields),
        }
    }
}

fn wrong(message: impl Into<String>) -> Stop {
    Stop::Wrong(ExpressionError { message: message.into(), span: None })
}

impl Planner<'_> {
    fn evaluate(&self, expression: &Expression) -> Result<CelValue, Stop> {
        match expression.evaluate(self).map_err(Stop::Wrong)? {
            Outcome::Known(value) => Ok(value),
            Outcome::Unknown => Err(Stop::Refused),
        }
    }

    fn run(&mut self, body: &[Statement]) -> Result<(), Stop> {
        for statement in body {
            if self.plan.drafts.len() > LARGEST {
                return Err(Stop::Refused);
            }
            match statement {
                Statement::Let { name, value, .. } => {
                    let value = self.evaluate(value)?;
                    self.locals.insert(name.clone(), Local::Computed(value));
                }
                Statement::For { names, list, body, .. } => {
                    let CelValue::List(items) = self.evaluate(list)? else {
                        return Err(wrong("expected a list to go through"));
                    };
                    for item in items.iter() {
                        self.unpack(names, item)?;
                        self.run(body)?;
                    }
                }
                Statement::If { condition, then, otherwise, .. } => match self.evaluate(condition)? {
                    CelValue::Bool(true) => self.run(then)?,
                    CelValue::Bool(false) => self.run(otherwise)?,
                    _ => return Err(wrong("expected true or false after `if`")),
                },
                Statement::Alias { to, from } => {
                    let from = self.operand(from)?;
                    match self.captured_output(to) {
                        Some(id) => {
                            self.plan.aliases.push((id, from));
                            self.locals.insert(to.clone(), Local::Operand(from));
                        }
                        None => self.assign(to, from),
                    }
                }
                Statement::Node(node) => self.node(node)?,
            }
        }
        Ok(())
    }

    fn unpack(&mut self, names: &[String], item: &CelValue) -> Result<(), Stop> {
        if let [name] = names {
            self.locals.insert(name.clone(), Local::Computed(item.clone()));
            return Ok(());
        }
        match item {
            CelValue::List(parts) if parts.len() == names.len() => {
                for (name, part) in names.iter().zip(parts.iter()) {
                    self.locals.insert(name.clone(), Local::Computed(part.clone()));
                }
                Ok(())
            }
            _ => Err(wrong(format!("expected a list of {} for {}", names.len(), names.join(", ")))),
        }
    }

    fn assign(&mut self, name: &str, operand: Operand) {
        self.assigned.entry(name.to_string()).or_default().push(operand);
        self.locals.insert(name.to_string(), Local::Operand(operand));
    }

    fn constant(&mut self, tensor: Arc<Tensor>) -> Operand {
        self.plan.constants.push(tensor);
        Operand::Constant(self.plan.constants.len() - 1)
    }

    fn bound(&mut self, bound: Bound) -> Operand {
        match bound {
            Bound::Value(id) => Operand::Existing(id),
            Bound::Virtual(tensor) => self.constant(tensor),
            Bound::Absent => Operand::Nothing,
        }
    }

    /// What a name stands for as an input.
    fn operand(&mut self, name: &str) -> Result<Operand, Stop> {
        match self.locals.get(name) {
            Some(Local::Operand(operand)) => return Ok(*operand),
            Some(Local::Computed(value)) => {
                return match self.scope.bound(value) {
                    Some(bound) => Ok(self.bound(bound)),
                    None => {
                        Err(wrong(format!("`{name}` is a number or a list; as an input it needs braces, {{{name}}}")))
                    }
                };
            }
            None => {}
        }
        match self.scope.named(name) {
            Some(bound) => Ok(self.bound(bound)),
            None => Err(wrong(format!("`{name}` is not a value"))),
        }
    }

    /// The matched output that a name stands for, if it is one that the replacement has to make.
    fn captured_output(&self, name: &str) -> Option<ValueId> {
        let bound = match self.locals.get(name) {
            Some(Local::Computed(value)) => self.scope.bound(value),
            _ if self.template.produced.contains(name) => self.scope.named(name),
            _ => None,
        };
        let graph = self.scope.search.graph;
        let made_here =
            |id: &ValueId| graph.producer(*id).is_some_and(|producer| self.scope.found.nodes.contains(&producer));
        match bound {
            Some(Bound::Value(id)) if made_here(&id) => Some(id),
            _ => None,
        }
    }

    fn node(&mut self, node: &TemplateNode) -> Result<(), Stop> {
        let search = self.scope.search;
        let pattern = search.pattern;
        let standard = node.domain.is_empty();
        if standard && operators::since(&node.operator) > search.opset {
            return Err(Stop::Refused);
        }
        let mut attributes: Vec<Attribute> = Vec::new();
        if let Some(index) = node.attributes_of.as_deref().and_then(|label| pattern.node(label)) {
            attributes.clone_from(&search.graph.node(self.scope.found.nodes[index]).attributes);
        }
        for attribute in &node.attributes {
            let value = match &attribute.value {
                TemplateValue::Literal(value) => value.clone(),
                TemplateValue::Computed(expression, _) => match pattern.attribute(expression.source()) {
                    Some(slot) if !self.locals.contains_key(expression.source()) => {
                        self.scope.found.attributes[slot].clone()
                    }
                    _ => self.attribute(&self.evaluate(expression)?)?,
                },
            };
            let value = typed(value, attribute.kind.as_deref());
            attributes.retain(|known| known.name != attribute.name);
            attributes.push(Attribute::new(attribute.name.clone(), value));
        }
        let mut inputs = Vec::new();
        for input in &node.inputs {
            self.input(input, &mut inputs)?;
        }
        while inputs.last() == Some(&Operand::Nothing) {
            inputs.pop();
        }
        let mut outputs = Vec::new();
        for output in &node.outputs {
            match output {
                TemplateOutput::Absent => outputs.push(Operand::Nothing),
                TemplateOutput::Value(name) => outputs.push(self.output(name)),
                TemplateOutput::List(name) => {
                    let slot = pattern.list(name).ok_or(Stop::Refused)?;
                    for bound in &self.scope.found.lists[slot] {
                        outputs.push(if let Bound::Value(id) = bound {
                            Operand::Existing(*id)
                        } else {
                            Operand::Nothing
                        });
                    }
                }
            }
        }
        let mut draft = Draft {
            named_after: node.label.as_deref().and_then(|label| pattern.node(label)),
            operator: node.operator.clone(),
            domain: node.domain.clone(),
            attributes,
            inputs,
            outputs,
        };
        if standard {
            self.lower(&mut draft)?;
        }
        self.plan.drafts.push(draft);
        Ok(())
    }

    /// What a name stands for as an output: a matched one that is made again, or a new value.
    fn output(&mut self, name: &str) -> Operand {
        match self.captured_output(name) {
            Some(id) => {
                let operand = Operand::Existing(id);
                self.locals.entry(name.to_string()).or_insert(Local::Operand(operand));
                self.assigned.entry(name.to_string()).or_default().push(operand);
                operand
            }
            None => {
                let operand = Operand::Fresh(self.plan.fresh);
                self.plan.fresh += 1;
                self.assign(name, operand);
                operand
            }
        }
    }

    fn input(&mut self, input: &TemplateInput, inputs: &mut Vec<Operand>) -> Result<(), Stop> {
        match input {
            TemplateInput::Absent => inputs.push(Operand::Nothing),
            TemplateInput::Value(name) => {
                let operand = self.operand(name)?;
                inputs.push(operand);
            }
            TemplateInput::List(name) => {
                if let Some(all) = self.assigned.remove(name) {
                    inputs.extend(all);
                } else if let Some(slot) = self.scope.search.pattern.list(name) {
                    for bound in self.scope.found.lists[slot].clone() {
                        let operand = self.bound(bound);
                        inputs.push(operand);
                    }
                } else {
                    return Err(wrong(format!("`{name}...` is not a list of values")));
                }
            }
            TemplateInput::Constant { element, dims, values, .. } => {
                let CelValue::List(items) = self.evaluate(values)? else { return Err(wrong("expected values")) };
                let mut flat = Vec::new();
                flatten(&items, &mut flat);
                let dtype = match element {
                    Some(element) => {
                        let like = |name: &str| match self.scope.named(name) {
                            Some(Bound::Value(id)) => self.scope.search.graph.value(id).dtype,
                            Some(Bound::Virtual(tensor)) => Some(tensor.dtype()),
                            _ => None,
                        };
                        Some(element_type(element, like).ok_or(Stop::Refused)?)
                    }
                    None => None,
                };
                let dims = dims.clone().unwrap_or_else(|| {
                    if dtype.is_some() && flat.len() == 1 { vec![] } else { vec![flat.len() as i64] }
                });
                let tensor = tensor(dtype, dims, &flat)?;
                let operand = self.constant(Arc::new(tensor));
                inputs.push(operand);
            }
        }
        Ok(())
    }

    fn attribute(&self, value: &CelValue) -> Result<AttributeValue, Stop> {
        Ok(match value {
            CelValue::Int(value) => AttributeValue::Int(*value),
            CelValue::Float(value) => AttributeValue::Float(*value as f32),
            CelValue::Bool(value) => AttributeValue::Int(i64::from(*value)),
            CelValue::String(text) => AttributeValue::from(text.as_str()),
            CelValue::List(items) => {
                let mut whole = Vec::new();
                let mut real = Vec::new();
                for item in items.iter() {
                    match item {
                        CelValue::Int(value) => {
                            whole.push(*value);
                            real.push(*value as f32);
                        }
                        CelValue::Float(value) => real.push(*value as f32),
                        CelValue::Null => return Err(Stop::Refused),
                        _ => return Err(wrong("expected numbers in the list of an attribute")),
                    }
                }
                if whole.len() == real.len() { AttributeValue::Ints(whole) } else { AttributeValue::Floats(real) }
            }
            CelValue::Null => return Err(Stop::Refused),
            _ => return Err(wrong("expected a number, a text or a list for an attribute")),
        })
    }

    /// Says a node in the model's opset: inputs that were attributes before become attributes again.
    fn lower(&self, draft: &mut Draft) -> Result<(), Stop> {
        let search = self.scope.search;
        if draft.operator == "Split" {
            draft.attributes.retain(|attribute| attribute.name != "num_outputs");
            if search.opset >= 18 && draft.inputs.len() < 2 {
                draft.attributes.push(Attribute::new("num_outputs", AttributeValue::Int(draft.outputs.len() as i64)));
            }
        }
        let Some(moved) = operators::moved(&draft.operator) else { return Ok(()) };
        let attribute = if search.opset >= moved.since {
            // A copied attribute that has become an input would be an error.
            draft.attributes.retain(|attribute| attribute.name != moved.attribute);
            return Ok(());
        } else {
            moved.attribute
        };
        let Some(&operand) = draft.inputs.get(moved.input) else { return Ok(()) };
        let tensor = match operand {
            Operand::Nothing => None,
            Operand::Constant(index) => self.plan.constants.get(index).cloned(),
            Operand::Existing(id) => Some(search.graph.constant(id).ok_or(Stop::Refused)?),
            Operand::Fresh(_) => return Err(Stop::Refused),
        };
        draft.inputs.truncate(moved.input);
        if let Some(tensor) = tensor {
            let value = operators::as_attribute(&draft.operator, &tensor).ok_or(Stop::Refused)?;
            draft.attributes.retain(|known| known.name != attribute);
            draft.attributes.push(Attribute::new(attribute, value));
        }
        Ok(())
    }
}

fn typed(value: AttributeValue, kind: Option<&str>) -> AttributeValue {
    match (value, kind) {
        (AttributeValue::Int(value), Some("float")) => AttributeValue::Float(value as f32),
        (AttributeValue::Float(value), Some("int")) => AttributeValue::Int(value as i64),
        (AttributeValue::Ints(values), Some("floats")) => {
            AttributeValue::Floats(values.into_iter().map(|value| value as f32).collect())
        }
        (value, _) => value,
    }
}

fn flatten(items: &[CelValue], flat: &mut Vec<CelValue>) {
    for item in items {
        match item {
            CelValue::List(inner) => flatten(inner, flat),
            other => flat.push(other.clone()),
        }
    }
}

fn tensor(dtype: Option<DType>, dims: Vec<i64>, values: &[CelValue]) -> Result<Tensor, Stop> {
    if dims.iter().product::<i64>() != values.len() as i64 {
        return Err(wrong(format!("{} values for the dimensions {dims:?}", values.len())));
    }
    let mut whole = Vec::new();
    let mut real = Vec::new();
    for value in values {
        match value {
            CelValue::Int(value) => {
                whole.push(*value);
                real.push(*value as f64);
            }
            CelValue::Float(value) => real.push(*value),
            CelValue::Bool(value) => {
                whole.push(i64::from(*value));
                real.push(f64::from(u8::from(*value)));
            }
            CelValue::Null => return Err(Stop::Refused),
            _ => return Err(wrong("expected numbers in a constant; a captured value needs a field, such as `.value`")),
        }
    }
    let all_whole = whole.len() == real.len();
    let dtype = dtype.unwrap_or(if all_whole { DType::Int64 } else { DType::Float });
    let made = if all_whole && !dtype.is_float() {
        Tensor::from_i64s("", dtype, &dims, &whole)
    } else {
        Tensor::from_f64s("", dtype, &dims, &real)
    };
    made.ok_or_else(|| wrong(format!("a constant cannot be made of type {}", dtype.name())))
}
