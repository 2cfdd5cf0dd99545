//! Closures that capture the very variable on a part of which they are called: `t.hops.some(|h| h == t.want)`.
//!
//! rhai locks a captured variable while a method runs on a part of it, and a closure that reads it then fails with a data race.

use std::collections::BTreeSet;

use rhai::{AST, ASTFlags, ASTNode, EvalAltResult, Expr, FnCallExpr, Position, Stmt};

use super::lexer;

/// A method that holds a variable which a closure among its arguments captures.
pub(super) struct HeldVariable {
    /// The variable.
    variable: String,
    /// Where the expression begins that the method is called on.
    pub(super) root_at: Position,
    /// The method.
    method: String,
    /// Where its name stands.
    pub(super) method_at: Position,
}

/// rhai's methods that change what they are called on.
pub(super) const CHANGING: &[&str] = &[
    "append",
    "chop",
    "clear",
    "crop",
    "dedup",
    "drain",
    "fill_with",
    "insert",
    "make_lower",
    "make_upper",
    "mixin",
    "pad",
    "pop",
    "push",
    "remove",
    "replace",
    "retain",
    "reverse",
    "set",
    "shift",
    "sort",
    "sort_by",
    "sort_desc",
    "splice",
    "split",
    "trim",
    "truncate",
];

impl HeldVariable {
    /// Tells whether a copy of what the method is called on is as good: neither rhai's method nor one of the script's `own` changes it.
    /// `text` is what was compiled.
    pub(super) fn may_work_on_a_copy(&self, own: &BTreeSet<&str>, text: &str) -> bool {
        let changes = match self.method.as_str() {
            // Its closure changes the elements, if it names them.
            "for_each" => lexer::byte_at(text, self.method_at).is_none_or(|begin| names_this(&text[begin..])),
            method => CHANGING.contains(&method) || own.contains(method),
        };
        !changes
    }

    /// Returns the error of a method that can't.
    pub(super) fn error(&self, at: Position) -> Box<EvalAltResult> {
        Box::new(EvalAltResult::ErrorDataRace(self.text(), at))
    }

    /// Says what is wrong.
    pub(super) fn text(&self) -> String {
        format!("`{}` works on a part of `{}`, which its closure reads meanwhile", self.method, self.variable)
    }

    /// Says what to do.
    pub(super) fn remedy(variable: &str) -> String {
        format!("take what the closure needs out before: `let want = {variable}.want;`, and use `want` in it")
    }
}

/// Tells whether `this` stands between the brackets of the call that a text begins with.
fn names_this(text: &str) -> bool {
    let mut depth = 0_usize;
    for token in lexer::tokens(text) {
        match (token.kind, &text[token.range.clone()]) {
            (lexer::TokenKind::Symbol('(' | '[' | '{'), _) => depth += 1,
            (lexer::TokenKind::Symbol(')' | ']' | '}'), _) if depth <= 1 => return false,
            (lexer::TokenKind::Symbol(')' | ']' | '}'), _) => depth -= 1,
            (lexer::TokenKind::Word, "this") => return true,
            _ => {}
        }
    }
    false
}

/// Finds all in a compiled script.
pub(super) fn in_ast(ast: &AST) -> Vec<HeldVariable> {
    let mut found = Vec::new();
    // The parts of a chain are chains themselves, but begin with no variable.
    let mut parts: BTreeSet<*const Expr> = BTreeSet::new();
    ast.walk(&mut |nodes| {
        if let Some(ASTNode::Expr(expr)) = nodes.last()
            && let Expr::Dot(chain, flags, _) | Expr::Index(chain, flags, _) = expr
        {
            if !flags.intersects(ASTFlags::BREAK) {
                parts.insert(&raw const chain.rhs);
            }
            if !parts.contains(&std::ptr::from_ref(*expr))
                && let Expr::Variable(variable, _, root_at) = &chain.lhs
            {
                found.extend(in_chain(expr, variable.1.as_str(), *root_at));
            }
        }
        true
    });
    found
}

/// Finds the first method of a chain, if it takes such a closure. Its result is no part of the variable.
fn in_chain(chain: &Expr, variable: &str, root_at: Position) -> Option<HeldVariable> {
    let mut rest = chain;
    loop {
        let (link, flags) = match rest {
            Expr::Dot(link, flags, _) | Expr::Index(link, flags, _) => (link, flags),
            _ => return None,
        };
        let next = match &link.rhs {
            Expr::Dot(next, ..) | Expr::Index(next, ..) if !flags.intersects(ASTFlags::BREAK) => &next.lhs,
            last => last,
        };
        if let (Expr::Dot(..), Expr::MethodCall(call, method_at)) = (rest, next) {
            return captures(call, variable).then(|| HeldVariable {
                variable: variable.into(),
                root_at,
                method: call.name.to_string(),
                method_at: *method_at,
            });
        }
        if flags.intersects(ASTFlags::BREAK) {
            return None;
        }
        rest = &link.rhs;
    }
}

/// Tells whether a closure among the arguments of a call captures a variable.
fn captures(call: &FnCallExpr, variable: &str) -> bool {
    let shares =
        |stmt: &Stmt| matches!(stmt, Stmt::Share(shared) if shared.iter().any(|(ident, _)| ident.name == variable));
    call.args.iter().any(|argument| {
        let mut found = false;
        argument.walk(&mut Vec::new(), &mut |nodes| {
            found = found || matches!(nodes.last(), Some(ASTNode::Stmt(stmt)) if shares(stmt));
            true
        });
        found
    })
}
