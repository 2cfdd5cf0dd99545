//! How two values of a script differ, as a person finds it soonest: where in them, and how there.

use rhai::{Array, Dynamic, Map};

use crate::prim::call::context::text_of;
use crate::prim::value::units::Table;

/// So many differences are told; those that follow are counted.
const TOLD_MAX: usize = 5;
/// So many characters of a value are shown.
const SHOWN_MAX: usize = 120;
/// So many lines of a difference of texts are shown.
const LINES_MAX: usize = 40;
/// Lines around a difference that are shown too.
const CONTEXT: usize = 2;

/// Tells whether two values are equal: numbers by their value, lists and maps by what is in them.
pub(super) fn are_equal(left: &Dynamic, right: &Dynamic) -> bool {
    differences(left, right, 1).is_empty()
}

/// Describes how `left` differs from `right`; nothing where they are equal.
pub(in crate::prim) fn difference(left: &Dynamic, right: &Dynamic) -> Option<String> {
    let texts = left.clone().into_string().ok().zip(right.clone().into_string().ok());
    if let Some((left, right)) =
        texts.filter(|(left, right)| left != right && (left.contains('\n') || right.contains('\n')))
    {
        return Some(format!("the texts differ (- left, + right)\n{}", line_difference(&left, &right)));
    }
    let found = differences(left, right, TOLD_MAX + 1);
    if found.is_empty() {
        return None;
    }
    let more = found.len() > TOLD_MAX;
    let mut told: Vec<String> = found.into_iter().take(TOLD_MAX).collect();
    if more {
        told.push("and more".into());
    }
    Some(told.join("; "))
}

fn differences(left: &Dynamic, right: &Dynamic, most: usize) -> Vec<String> {
    let mut found = Vec::new();
    compare("", left, right, most, &mut found);
    found
}

fn compare(path: &str, left: &Dynamic, right: &Dynamic, most: usize, found: &mut Vec<String>) {
    if found.len() >= most {
        return;
    }
    let at = if path.is_empty() { String::new() } else { format!("at `{path}`: ") };
    if let (Some(left), Some(right)) = (left.read_lock::<Map>(), right.read_lock::<Map>()) {
        for (key, value) in left.iter() {
            let below = if path.is_empty() { key.to_string() } else { format!("{path}.{key}") };
            match right.get(key) {
                Some(other) => compare(&below, value, other, most, found),
                None => found.push(format!("at `{below}`: {} is only in the left one", shown(value))),
            }
        }
        for (key, value) in right.iter().filter(|(key, _)| !left.contains_key(*key)) {
            let below = if path.is_empty() { key.to_string() } else { format!("{path}.{key}") };
            found.push(format!("at `{below}`: {} is only in the right one", shown(value)));
        }
        return;
    }
    if let (Some(left), Some(right)) = (left.read_lock::<Array>(), right.read_lock::<Array>()) {
        for (index, (value, other)) in left.iter().zip(right.iter()).enumerate() {
            compare(&format!("{path}[{index}]"), value, other, most, found);
        }
        if left.len() != right.len() {
            let (longer, side) = if left.len() > right.len() { (&left, "left") } else { (&right, "right") };
            let (count, other) = (longer.len(), left.len().min(right.len()));
            let first = shown(&longer[other]);
            found.push(format!("{at}the {side} one has {count} items, the other {other}; the next is {first}"));
        }
        return;
    }
    if !same(left, right) {
        found.push(format!("{at}{} is not {}", shown(left), shown(right)));
    }
}

fn same(left: &Dynamic, right: &Dynamic) -> bool {
    let table = |value: &Dynamic| value.clone().try_cast::<Table>();
    if let Some(found) = table(left).map(|left| left.is(right)).or_else(|| table(right).map(|right| right.is(left))) {
        return found;
    }
    let number = |value: &Dynamic| value.as_float().ok().or_else(|| value.as_int().ok().map(|whole| whole as f64));
    match (left.as_int(), right.as_int()) {
        (Ok(left), Ok(right)) => return left == right,
        _ => {
            if let (Some(left), Some(right)) = (number(left), number(right)) {
                return left == right;
            }
        }
    }
    // Values of ours are what they say: an address is equal to one of the same text, not to that text.
    left.type_name() == right.type_name() && written(left) == written(right)
}

fn written(value: &Dynamic) -> String {
    text_of(value)
}

/// Writes a value as a script would, as far as a line goes.
pub(in crate::prim) fn shown(value: &Dynamic) -> String {
    let text = match value.clone().into_string() {
        Ok(text) => format!("{text:?}"),
        Err(_) if value.is_unit() => "()".into(),
        Err(_) => written(value),
    };
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Compares two texts line by line; what they have in common is left out but for some lines around a difference.
fn line_difference(left: &str, right: &str) -> String {
    let (left, right): (Vec<&str>, Vec<&str>) = (left.split('\n').collect(), right.split('\n').collect());
    let begin = left.iter().zip(&right).take_while(|(left, right)| left == right).count();
    let rest = left.len().min(right.len()) - begin;
    let end = left.iter().rev().zip(right.iter().rev()).take(rest).take_while(|(left, right)| left == right).count();
    let (left_mid, right_mid) = (&left[begin..left.len() - end], &right[begin..right.len() - end]);
    let mut lines: Vec<String> = Vec::new();
    let common = |line: &&str| format!("  {line}").trim_end().to_string();
    lines.extend(left[begin.saturating_sub(CONTEXT)..begin].iter().map(common));
    lines.extend(middle(left_mid, right_mid));
    let after = &left[left.len() - end..];
    lines.extend(after.iter().take(CONTEXT).map(common));
    if lines.len() > LINES_MAX {
        let more = lines.len() - LINES_MAX;
        lines.truncate(LINES_MAX);
        lines.push(format!("  … and {more} more lines"));
    }
    lines.join("\n")
}

/// Compares what remains between the common beginning and end: by the longest common lines where that is cheap.
fn middle(left: &[&str], right: &[&str]) -> Vec<String> {
    const CHEAP: usize = 1_000_000;
    let removed = |line: &&str| format!("- {line}");
    let added = |line: &&str| format!("+ {line}");
    if left.len().saturating_mul(right.len()) > CHEAP {
        return left.iter().map(removed).chain(right.iter().map(added)).collect();
    }
    // common[i][j]: how many lines left[i..] and right[j..] have in common, in order.
    let mut common = vec![vec![0_u32; right.len() + 1]; left.len() + 1];
    for i in (0..left.len()).rev() {
        for j in (0..right.len()).rev() {
            common[i][j] = match left[i] == right[j] {
                true => common[i + 1][j + 1] + 1,
                false => common[i + 1][j].max(common[i][j + 1]),
            };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < left.len() || j < right.len() {
        if i < left.len() && j < right.len() && left[i] == right[j] {
            lines.push(format!("  {}", left[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == right.len() || i < left.len() && common[i + 1][j] >= common[i][j + 1] {
            lines.push(removed(&left[i]));
            i += 1;
        } else {
            lines.push(added(&right[j]));
            j += 1;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(script: &str) -> Dynamic {
        rhai::Engine::new().eval(script).expect("a value")
    }

    fn told(left: &str, right: &str) -> String {
        difference(&value(left), &value(right)).unwrap_or_default()
    }

    #[test]
    fn equal_values_have_none() {
        for (left, right) in
            [("1", "1"), ("1", "1.0"), ("#{a: [1, \"x\"]}", "#{a: [1, \"x\"]}"), ("()", "()"), ("[]", "[]")]
        {
            assert_eq!(told(left, right), "");
            assert!(are_equal(&value(left), &value(right)));
        }
    }

    #[test]
    fn what_differs_is_named_by_its_path() {
        assert_eq!(told("1", "2"), "1 is not 2");
        assert_eq!(told("\"1\"", "1"), "\"1\" is not 1");
        assert_eq!(told("#{a: #{b: [1, 2]}}", "#{a: #{b: [1, 3]}}"), "at `a.b[1]`: 2 is not 3");
        assert_eq!(told("#{a: 1}", "#{}"), "at `a`: 1 is only in the left one");
        assert_eq!(told("#{}", "#{a: ()}"), "at `a`: () is only in the right one");
        assert_eq!(told("[1]", "[1, 5, 6]"), "the right one has 3 items, the other 1; the next is 5");
        assert_eq!(told("[1,2,3,4,5,6,7]", "[0,0,0,0,0,0,0]").matches("is not").count(), TOLD_MAX);
        assert!(told("[1,2,3,4,5,6,7]", "[0,0,0,0,0,0,0]").ends_with("and more"));
        assert_eq!(told("9007199254740993", "9007199254740992"), "9007199254740993 is not 9007199254740992");
    }

    #[test]
    fn texts_of_many_lines_are_compared_line_by_line() {
        let left = r#""a\nb\nc\nd\ne\nf""#;
        let right = r#""a\nb\nc\nD\nx\ne\nf""#;
        assert_eq!(told(left, right), "the texts differ (- left, + right)\n  b\n  c\n- d\n+ D\n+ x\n  e\n  f");
        assert_eq!(told(r#""a\n""#, r#""a""#), "the texts differ (- left, + right)\n  a\n- ");
    }
}
