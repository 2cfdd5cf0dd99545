//! rhai's methods that change what they are called on and return nothing, where their result is used: `out.trim() == "0"`.

use rhai::{AST, ASTNode, Expr, Position, Stmt};

/// The methods; none of ours has such a name and returns something.
const METHODS: &[&str] = &[
    "append",
    "clear",
    "crop",
    "make_lower",
    "make_upper",
    "pad",
    "push",
    "replace",
    "reverse",
    "sort",
    "trim",
    "truncate",
];

/// Finds the name and the place of each such call whose result is used.
pub(super) fn used(ast: &AST) -> Vec<(String, Position)> {
    let mut found = Vec::new();
    ast.walk(&mut |nodes| {
        let Some((ASTNode::Expr(last @ Expr::MethodCall(call, position)), above)) = nodes.split_last() else {
            return true;
        };
        if METHODS.contains(&call.name.as_str()) && is_used(last, above) {
            found.push((call.name.to_string(), *position));
        }
        true
    });
    found
}

/// Tells whether the value of a method's call is used: something is called on it, or its chain is part of more than a statement.
fn is_used(method: &Expr, above: &[ASTNode<'_>]) -> bool {
    let mut inner = method;
    for node in above.iter().rev() {
        match node {
            ASTNode::Expr(chain @ (Expr::Dot(link, ..) | Expr::Index(link, ..))) => {
                if std::ptr::eq(&raw const link.lhs, inner) {
                    return true;
                }
                inner = chain;
            }
            ASTNode::Expr(Expr::Stmt(_)) => return false,
            ASTNode::Expr(_) => return true,
            // The last statement of a block may be its value.
            ASTNode::Stmt(Stmt::Expr(_)) => return false,
            ASTNode::Stmt(Stmt::If(flow, _) | Stmt::While(flow, _)) => {
                return std::ptr::eq(&raw const flow.expr, inner);
            }
            ASTNode::Stmt(stmt) => {
                return matches!(stmt, Stmt::FnCall(..) | Stmt::Var(..) | Stmt::Assignment(_) | Stmt::Return(..));
            }
            _ => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_that_are_used_are_found() {
        let mut engine = rhai::Engine::new();
        engine.set_optimization_level(rhai::OptimizationLevel::None);
        let names = |text: &str| -> Vec<String> {
            used(&engine.compile(text).unwrap()).into_iter().map(|(name, _)| name).collect()
        };
        for text in [
            "let s = \"a\"; s.trim() == \"0\"",
            "let s = \"a\"; let t = s.trim();",
            "let s = \"a\"; if s.trim() == \"0\" { s }",
            "let s = #{}; print(s.out.trim())",
            "let s = \"a\"; s.trim().len()",
            "let s = \"a\"; let l = [1, s.trim()];",
            "fn f(s) { return s.trim(); }",
            "let s = \"a\"; s = s.trim();",
        ] {
            assert_eq!(names(text), ["trim"], "{text}");
        }
        for text in [
            "let s = \"a\"; s.trim();",
            "let l = []; l.push(1)",
            "fn f(l) { l.sort() }",
            "let l = []; if true { l.push(1); }",
        ] {
            assert!(names(text).is_empty(), "{text}");
        }
    }
}
