//! Stores that can't be read: the file and the byte are named, nothing is changed, and what is whole can still be used.

use expect_test::expect;

use super::{CONTAINERS, in_network_world, make_web, network, nothing_happens};

#[test]
fn damaged_records() {
    in_network_world(CONTAINERS, |w, _| {
        make_web(w);
        w.run("cp -a state/store whole; printf '{\"name\": \"web\", nonsense' >state/store/records/networks.d/web.json").ok();
        nothing_happens(
            w,
            expect![[r#"
                $ topo network ls
                --- stderr
                error: read `DIR/state/store/records/networks.d/web.json`: byte 16: key must be a string at line 1 column 17
                hint: the file is damaged; nothing was changed
                --- exit code 1
                $ topo network inspect web
                --- stderr
                error: read `DIR/state/store/records/networks.d/web.json`: byte 16: key must be a string at line 1 column 17
                hint: the file is damaged; nothing was changed
                --- exit code 1
                $ topo network connect web c2
                --- stderr
                error: read `DIR/state/store/records/networks.d/web.json`: byte 16: key must be a string at line 1 column 17
                hint: the file is damaged; nothing was changed
                --- exit code 1
                $ topo network rm --force web
                --- stderr
                error: read `DIR/state/store/records/networks.d/web.json`: byte 16: key must be a string at line 1 column 17
                hint: the file is damaged; nothing was changed
                --- exit code 1
                $ topo network create web
                --- stderr
                error: read `DIR/state/store/records/networks.d/web.json`: byte 16: key must be a string at line 1 column 17
                hint: the file is damaged; nothing was changed
                --- exit code 1
                $ topo gc
                --- stderr
                nothing was left behind
            "#]],
        );
        w.run("rm -r state/store; mv whole state/store").ok();
        network(w, "rm --force web").ok();
    });
}
