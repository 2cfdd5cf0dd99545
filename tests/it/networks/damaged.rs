//! Stores that can't be read: the file and the byte are named, nothing is changed, and what is whole can still be used.

use expect_test::expect;

use super::{CONTAINERS, in_network_world, make_web, network, nothing_happens};
use crate::cli::Terminal;

#[test]
fn damaged_records() {
    in_network_world(CONTAINERS, |w, _| {
        make_web(w);
        w.run(
            "cp -a state/store whole; printf '{\"name\": \"web\", nonsense' >state/store/records/networks.d/web.json",
        )
        .ok();
        nothing_happens(
            w,
            expect![[r#"
                $ topo network ls
                --- stderr
                error: read `DIR/state/store/records/networks.d/web.json`: byte 16: key must be a string at line 1 column 17
                hint: the file is damaged; nothing was changed. Put back a copy of it, or take down the lab that it is about (`topo down --force LAB`) and delete it
                --- exit code 1
                $ topo network inspect web
                --- stderr
                error: read `DIR/state/store/records/networks.d/web.json`: byte 16: key must be a string at line 1 column 17
                hint: the file is damaged; nothing was changed. Put back a copy of it, or take down the lab that it is about (`topo down --force LAB`) and delete it
                --- exit code 1
                $ topo network connect web c2
                --- stderr
                error: read `DIR/state/store/records/networks.d/web.json`: byte 16: key must be a string at line 1 column 17
                hint: the file is damaged; nothing was changed. Put back a copy of it, or take down the lab that it is about (`topo down --force LAB`) and delete it
                --- exit code 1
                $ topo network rm --force web
                --- stderr
                error: read `DIR/state/store/records/networks.d/web.json`: byte 16: key must be a string at line 1 column 17
                hint: the file is damaged; nothing was changed. Put back a copy of it, or take down the lab that it is about (`topo down --force LAB`) and delete it
                --- exit code 1
                $ topo network create web
                --- stderr
                error: read `DIR/state/store/records/networks.d/web.json`: byte 16: key must be a string at line 1 column 17
                hint: the file is damaged; nothing was changed. Put back a copy of it, or take down the lab that it is about (`topo down --force LAB`) and delete it
                --- exit code 1
                $ topo gc
                --- stderr
                error: read `DIR/state/store/records/networks.d/web.json`: byte 16: key must be a string at line 1 column 17
                hint: the file is damaged; nothing was changed. Put back a copy of it, or take down the lab that it is about (`topo down --force LAB`) and delete it
                --- exit code 1
            "#]],
        );
        w.run("rm -r state/store; mv whole state/store").ok();
        network(w, "rm --force web").ok();
    });
}

#[test]
fn a_damaged_endpoint() {
    in_network_world(CONTAINERS, |w, _| {
        make_web(w);
        w.run(
            "cp -a state/store whole; for f in state/store/records/endpoints.d/web.d/*.json; do echo '[1, 2' >$f; done",
        )
        .ok();
        nothing_happens(
            w,
            expect![[r#"
                $ topo network inspect web
                --- stderr
                error: read `DIR/state/store/records/endpoints.d/web.d/XXXXXXXXXXXX.json`: byte 4: trailing characters at line 1 column 5
                hint: the file is damaged; nothing was changed. Put back a copy of it, or take down the lab that it is about (`topo down --force LAB`) and delete it
                --- exit code 1
                $ topo network disconnect web c1
                --- stderr
                error: read `DIR/state/store/records/endpoints.d/web.d/XXXXXXXXXXXX.json`: byte 4: trailing characters at line 1 column 5
                hint: the file is damaged; nothing was changed. Put back a copy of it, or take down the lab that it is about (`topo down --force LAB`) and delete it
                --- exit code 1
                $ topo network rm web
                --- stderr
                error: read `DIR/state/store/records/endpoints.d/web.d/XXXXXXXXXXXX.json`: byte 4: trailing characters at line 1 column 5
                hint: the file is damaged; nothing was changed. Put back a copy of it, or take down the lab that it is about (`topo down --force LAB`) and delete it
                --- exit code 1
                $ topo network rm --force web
                --- stderr
                error: read `DIR/state/store/records/endpoints.d/web.d/XXXXXXXXXXXX.json`: byte 4: trailing characters at line 1 column 5
                hint: the file is damaged; nothing was changed. Put back a copy of it, or take down the lab that it is about (`topo down --force LAB`) and delete it
                --- exit code 1
            "#]],
        );
        // For another container it is not read.
        network(w, "connect web c2").ok();
        network(w, "disconnect web c2").ok();
        w.run("rm -r state/store; mv whole state/store").ok();
        network(w, "rm --force web").ok();
    });
}

/// I4: a damaged file of addresses is refused with its name and the byte, and nothing is written over it.
#[test]
fn i4_damaged_addresses() {
    in_network_world(CONTAINERS, |w, _| {
        make_web(w);
        w.run("cp -a state/store whole; printf '' >state/store/leases/10.5.0.0-24.d/0.json").ok();
        nothing_happens(
            w,
            expect![[r#"
                $ topo network connect web c2
                --- stderr
                error: read `DIR/state/store/leases/10.5.0.0-24.d/0.json`: byte 0: EOF while parsing a value at line 1 column 0
                hint: the file is damaged; nothing was changed. Put back a copy of it, or take down the lab that it is about (`topo down --force LAB`) and delete it
                --- exit code 1
                $ topo network connect web c2 --ip 10.5.0.7
                --- stderr
                error: read `DIR/state/store/leases/10.5.0.0-24.d/0.json`: byte 0: EOF while parsing a value at line 1 column 0
                hint: the file is damaged; nothing was changed. Put back a copy of it, or take down the lab that it is about (`topo down --force LAB`) and delete it
                --- exit code 1
                $ topo network inspect web
                --- stderr
                error: read `DIR/state/store/leases/10.5.0.0-24.d/0.json`: byte 0: EOF while parsing a value at line 1 column 0
                hint: the file is damaged; nothing was changed. Put back a copy of it, or take down the lab that it is about (`topo down --force LAB`) and delete it
                --- exit code 1
            "#]],
        );
        w.run("rm -r state/store; cp -a whole state/store").ok();
        w.run("sed -i 's/10.5.0.2/10.5.0.1/' state/store/leases/10.5.0.0-24.d/0.json").ok();
        nothing_happens(
            w,
            expect![[r#"
                $ topo network connect web c2
                --- stderr
                error: read `DIR/state/store/leases/10.5.0.0-24.d/0.json`: its check sum does not match: a byte of it was lost, added or changed
                hint: the file is damaged; nothing was changed. Put back a copy of it, or take down the lab that it is about (`topo down --force LAB`) and delete it
                --- exit code 1
            "#]],
        );
        w.run("rm -r state/store; cp -a whole state/store; echo '{}' >state/store/pools/10.5.0.0-24.json").ok();
        nothing_happens(
            w,
            expect![[r#"
                $ topo network connect web c2
                --- stderr
                error: read `DIR/state/store/pools/10.5.0.0-24.json`: byte 1: missing field `value` at line 1 column 2
                hint: the file is damaged; nothing was changed. Put back a copy of it, or take down the lab that it is about (`topo down --force LAB`) and delete it
                --- exit code 1
                $ topo network create other --subnet 10.5.0.0/25
                --- stderr
                error: read `DIR/state/store/pools/10.5.0.0-24.json`: byte 1: missing field `value` at line 1 column 2
                hint: the file is damaged; nothing was changed. Put back a copy of it, or take down the lab that it is about (`topo down --force LAB`) and delete it
                --- exit code 1
                $ topo gc
                --- stderr
                error: read `DIR/state/store/pools/10.5.0.0-24.json`: byte 1: missing field `value` at line 1 column 2
                hint: the file is damaged; nothing was changed. Put back a copy of it, or take down the lab that it is about (`topo down --force LAB`) and delete it
                --- exit code 1
            "#]],
        );
        w.run("rm -r state/store; mv whole state/store").ok();

        // What can be taken down is, and the rest once the file is whole.
        w.run("cp state/store/leases/10.5.0.0-24.d/0.json whole; printf x >state/store/leases/10.5.0.0-24.d/0.json")
            .ok();
        w.session(expect![[r#"
            $ topo network disconnect web c1
            --- stderr
            error: undo: lease `10.5.0.2` of the pool `10.5.0.0/24`: read `DIR/state/store/leases/10.5.0.0-24.d/0.json`: byte 0: expected value at line 1 column 1 (the file is damaged; nothing was changed. Put back a copy of it, or take down the lab that it is about (`topo down --force LAB`) and delete it)
             |
             = at: stdlib/network/addresses.rhai:135:23, called from stdlib/network/joining.rhai:136:58, called from stdlib/network/joining.rhai:96:47, called from stdlib/network/joining.rhai:34:43, called from stdlib/network/joining.rhai:29:5, called from scripts/network/connect.rhai:20:86
            --- exit code 1
            $ topo network ls
            NAME  SUBNET       DRIVER  GATEWAY   STATE  ENDPOINTS  LABELS
            web   10.5.0.0/24  bridge  10.5.0.1  up     1
        "#]]);
        w.topo(&["gc"]).fails(1).says("state/store/leases/10.5.0.0-24.d/0.json`: byte 0");
        w.session(expect![[r#"
            $ mv whole state/store/leases/10.5.0.0-24.d/0.json
            $ topo gc
            --- stderr
            removed lab `net.web.XXXXXXXXXXXX`
            $ topo network rm web
            network web is removed
        "#]]);
    });
}

/// N8: directories are ours alone, and what else is in them is left alone.
#[test]
fn n8_only_files_of_ours_are_read() {
    in_network_world(CONTAINERS, |w, _| {
        make_web(w);
        w.run("cd state/store; test -z \"$(find . -type d ! -perm 0700)\"; test -z \"$(find . -type f ! -perm 0600)\"")
            .ok();
        w.run(
            "cd state/store/records/networks.d; mkdir dir dir.json; touch notes.txt .web.json; ln -s web.json two.json",
        )
        .ok();
        let listed = network(w, "ls").ok();
        assert_eq!(listed.out().lines().count(), 2, "{}", listed.out());
        w.run("cd state/store/records/networks.d; rmdir dir dir.json; rm notes.txt .web.json two.json").ok();
        network(w, "rm --force web").ok();
    });
}

#[test]
fn a_store_that_isnt_ones_own() {
    in_network_world(CONTAINERS, |w, _| {
        make_web(w);
        w.run("chmod 770 state/store").ok();
        nothing_happens(
            w,
            expect![[r#"
                $ topo network ls
                --- stderr
                error: open the store `DIR/state/store`: others can write to it (mode 0770)
                hint: run `chmod 700 DIR/state/store`
                --- exit code 1
                $ topo network rm --force web
                --- stderr
                error: open the store `DIR/state/store`: others can write to it (mode 0770)
                hint: run `chmod 700 DIR/state/store`
                --- exit code 1
                $ topo gc
                --- stderr
                error: open the store `DIR/state/store`: others can write to it (mode 0770)
                hint: run `chmod 700 DIR/state/store`
                --- exit code 1
            "#]],
        );
        w.run("chmod 700 state/store; chown 61000 state/store").ok();
        nothing_happens(
            w,
            expect![[r#"
                $ topo network ls
                --- stderr
                error: open the store `DIR/state/store`: it belongs to user 61000, and you are user 0
                hint: set TOPO_STORE to a directory of your own
                --- exit code 1
                $ topo network rm --force web
                --- stderr
                error: open the store `DIR/state/store`: it belongs to user 61000, and you are user 0
                hint: set TOPO_STORE to a directory of your own
                --- exit code 1
            "#]],
        );
        w.run("chown 0 state/store; chown 61000 state/store/records/networks.d/web.json").ok();
        nothing_happens(
            w,
            expect![[r#"
                $ topo network ls
                --- stderr
                error: read `DIR/state/store/records/networks.d/web.json`: it belongs to user 61000, and you are user 0
                --- exit code 1
            "#]],
        );
        w.run("chown 0 state/store/records/networks.d/web.json").ok();
        network(w, "rm --force web").ok();
    });
}
