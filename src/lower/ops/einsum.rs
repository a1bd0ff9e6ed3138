//! Einsum (opset 12 and later): two operands at a time by dot, letters that only one of them has summed away first.
//!
//! HLO: dot with batch dimensions, reduce, transpose; a letter that appears twice in one operand takes its diagonal by
//! iota, compare, select and reduce. An ellipsis is spelled out with letters of its own.

use super::Problem;
use crate::lower::call::{Call, Lowered};
use crate::lower::hlo::{Builder, Direction, DotDims, Op};
use crate::onnx::DType;

/// A tensor with a letter for each dimension.
struct Term {
    op: Op,
    letters: Vec<u32>,
}

/// Letters of an ellipsis count from here, the last dimension first, so that operands line up from the right.
const ELLIPSIS: u32 = 0x10_0000;

/// Einsum.
pub fn einsum(call: &mut Call) -> Lowered {
    let equation: String = call.text("equation", "").chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = match equation.split_once("->") {
        Some((left, right)) => (left.to_string(), Some(right.to_string())),
        None => (equation.clone(), None),
    };
    let terms: Vec<&str> = left.split(',').collect();
    if terms.len() != call.arity() {
        return Err(format!("'{equation}' has {} terms for {} inputs", terms.len(), call.arity()).into());
    }
    let mut operands = Vec::new();
    let mut widest = 0;
    for (index, term) in terms.iter().enumerate() {
        let op = call.input(index)?;
        let rank = call.b.dims(op).len();
        let (letters, dots) = letters(term, rank)?;
        widest = widest.max(dots);
        operands.push(Term { op, letters });
    }
    let wanted = match right {
        Some(right) => letters(&right, right.chars().filter(|c| *c != '.').count() + widest)?.0,
        None => implied(&operands, widest),
    };
    let b = &mut *call.b;
    broadcast_ellipsis(b, &mut operands);
    let mut terms = operands.into_iter().map(|term| diagonal(b, term)).collect::<Vec<_>>().into_iter();
    let mut sum = terms.next().ok_or("it has no inputs")?;
    let mut rest: Vec<Term> = terms.collect();
    while !rest.is_empty() {
        let next = rest.remove(0);
        let needed = |letter: &u32| wanted.contains(letter) || rest.iter().any(|term| term.letters.contains(letter));
        sum = contract(b, sum, next, &needed);
    }
    let sum = sum_away(b, sum, &|letter| wanted.contains(letter));
    let perm: Option<Vec<i64>> =
        wanted.iter().map(|letter| sum.letters.iter().position(|l| l == letter).map(|i| i as i64)).collect();
    let perm = perm.ok_or_else(|| format!("'{equation}' gives a letter that no input has"))?;
    Ok(vec![b.transpose(sum.op, &perm)])
}

/// A term's letters, and how many of them the ellipsis stands for.
fn letters(term: &str, rank: usize) -> Result<(Vec<u32>, usize), Problem> {
    let named = term.chars().filter(|c| *c != '.').count();
    let wrong = || Problem::Unsupported(format!("term '{term}' does not fit {rank} dimensions"));
    let Some((before, after)) = term.split_once("...") else {
        let letters: Vec<u32> = term.chars().map(u32::from).collect();
        return if letters.len() == rank { Ok((letters, 0)) } else { Err(wrong()) };
    };
    let dots = rank.checked_sub(named).ok_or_else(wrong)?;
    let middle = (0..dots as u32).rev().map(|i| ELLIPSIS + i);
    Ok((before.chars().map(u32::from).chain(middle).chain(after.chars().map(u32::from)).collect(), dots))
}

/// Without an arrow: the ellipsis, then the letters that appear once, in the alphabet's order.
fn implied(operands: &[Term], widest: usize) -> Vec<u32> {
    let all: Vec<u32> = operands.iter().flat_map(|term| term.letters.iter().copied()).collect();
    let mut once: Vec<u32> =
        all.iter().copied().filter(|&l| l < ELLIPSIS && all.iter().filter(|&&other| other == l).count() == 1).collect();
    once.sort_unstable();
    (0..widest as u32).rev().map(|i| ELLIPSIS + i).chain(once).collect()
}

/// Dimensions of size 1 under an ellipsis grow to the size that another operand has there.
fn broadcast_ellipsis(b: &mut Builder, operands: &mut [Term]) {
    let size_of = |b: &Builder, operands: &[Term], letter: u32| {
        operands
            .iter()
            .flat_map(|term| {
                let dims = b.dims(term.op);
                term.letters.iter().zip(dims).filter(|(l, _)| **l == letter).map(|(_, size)| size).collect::<Vec<_>>()
            })
            .max()
            .unwrap_or(1)
    };
    for index in 0..operands.len() {
        let letters = operands[index].letters.clone();
        let sizes: Vec<i64> = letters.iter().map(|&letter| size_of(b, operands, letter)).collect();
        operands[index].op = b.expand(operands[index].op, &sizes);
    }
}

/// A letter that appears twice in one operand: only where both places are the same counts.
fn diagonal(b: &mut Builder, mut term: Term) -> Term {
    loop {
        let twice =
            (0..term.letters.len()).find_map(|i| (0..i).find(|&j| term.letters[j] == term.letters[i]).map(|j| (j, i)));
        let Some((first, second)) = twice else { return term };
        let dims = b.dims(term.op);
        let (rows, columns) = (b.iota(DType::Int32, &dims, first), b.iota(DType::Int32, &dims, second));
        let same = b.compare(Direction::Eq, rows, columns);
        let zero = b.full_like(term.op, 0.0);
        let kept = b.select(same, term.op, zero);
        term.op = b.sum(kept, &[second as i64]);
        term.letters.remove(second);
    }
}

fn sum_away(b: &mut Builder, term: Term, needed: &dyn Fn(&u32) -> bool) -> Term {
    let dims: Vec<i64> = (0..term.letters.len()).filter(|&i| !needed(&term.letters[i])).map(|i| i as i64).collect();
    let op = b.sum(term.op, &dims);
    Term { op, letters: term.letters.into_iter().filter(needed).collect() }
}

fn contract(b: &mut Builder, left: Term, right: Term, needed: &dyn Fn(&u32) -> bool) -> Term {
    let in_right = right.letters.clone();
    let left = sum_away(b, left, &|letter| needed(letter) || in_right.contains(letter));
    let in_left = left.letters.clone();
    let right = sum_away(b, right, &|letter| needed(letter) || in_left.contains(letter));
    let place = |letters: &[u32], letter: u32| letters.iter().position(|&l| l == letter).unwrap_or(0) as i64;
    let shared: Vec<u32> = left.letters.iter().copied().filter(|letter| right.letters.contains(letter)).collect();
    let (batch, over): (Vec<u32>, Vec<u32>) = shared.into_iter().partition(|letter| needed(letter));
    let dims = DotDims {
        left_contracting: over.iter().map(|&letter| place(&left.letters, letter)).collect(),
        right_contracting: over.iter().map(|&letter| place(&right.letters, letter)).collect(),
        left_batch: batch.iter().map(|&letter| place(&left.letters, letter)).collect(),
        right_batch: batch.iter().map(|&letter| place(&right.letters, letter)).collect(),
    };
    let op = b.dot(left.op, right.op, dims);
    let own = |letters: &[u32]| {
        letters.iter().copied().filter(|l| !batch.contains(l) && !over.contains(l)).collect::<Vec<u32>>()
    };
    let letters = [batch.clone(), own(&left.letters), own(&right.letters)].concat();
    Term { op, letters }
}
