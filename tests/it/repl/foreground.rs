//! Job control across a pid namespace: the terminal goes to whoever runs in a sandbox, and comes back.

use super::as_root;
use super::screen::{CTRL_C, CTRL_D, Screen};
use crate::stage::in_used_user_world;
use crate::world::World;

const CTRL_Z: &str = "\x1a";

impl Screen {
    /// Opens a shell by `:sh`, and waits until it reads.
    fn shell(&mut self, ready: &str) {
        self.begin(":sh h");
        self.keys(&format!("echo {ready}-$((1 + 1))\r"));
        self.shows(&format!("{ready}-2"));
    }

    /// Waits for the prompt of a shell.
    fn prompt_of_shell(&mut self) {
        self.until("no prompt of the shell", |screen| screen.line().ends_with(['#', '$']));
    }

    /// The session reads and answers.
    fn answers(&mut self) {
        self.prompt();
        self.enter("20 + 22");
        self.shows("\n42\n");
    }
}

/// Shells that end in all ways, and what is at the prompt then.
fn shells_give_it_back(w: &World, shell: &str) {
    let mut screen = Screen::open_with(w, &[("TERM", "xterm-256color"), ("SHELL", shell)], &[]);
    screen.enter("let h = netns(\"h\");");
    screen.shell("first");
    screen.keys("exit\r");
    screen.answers();
    // By the end of the input, behind a command of its own that had the terminal.
    screen.shell("second");
    // No `sh -c`: a Ctrl-C at which dash is about to fork ends neither it nor its child.
    w.write("busy", "busy-2\n");
    screen.keys("tail -f busy\r");
    screen.shows("busy-2");
    screen.keys(CTRL_C);
    // What is typed while the kernel takes Ctrl-C in is dropped with the rest of the line (termios(3), NOFLSH).
    screen.prompt_of_shell();
    screen.keys("echo back-$((1 + 2))\r");
    screen.shows("back-3");
    // Before its prompt bash does not read keys yet, and the kernel takes Ctrl-D for the end of a line that bash never sees
    // (termios(3), VEOF).
    screen.prompt_of_shell();
    screen.keys(CTRL_D);
    screen.answers();
    // Killed, a shell gives nothing back itself.
    screen.shell("third");
    screen.keys("kill -KILL $$\r");
    screen.answers();
    screen.leave();
}

#[test]
fn shells_give_the_terminal_back() {
    as_root(|w, _| shells_give_it_back(w, "/bin/bash"));
}

#[test]
fn shells_in_a_sandbox_give_the_terminal_back() {
    in_used_user_world("", |w, _| {
        shells_give_it_back(w, "/bin/bash");
        shells_give_it_back(w, "/bin/dash");
    });
}

/// `topo exec` in a sandbox gives the terminal back to the shell script that ran it, which then reads from it.
#[test]
fn exec_in_a_sandbox_gives_the_terminal_back() {
    in_used_user_world("", |w, _| {
        let topo = w.program().display();
        w.topo(&["run", "--name", "lab", "-e", r#"netns("h");"#]).ok();
        for shell in ["bash --norc", "dash -i"] {
            let mut screen =
                Screen::at_shell(w, &format!("{topo} exec lab/h {shell}; echo code $?; read line; echo line $line"));
            screen.keys("echo inside-$((1 + 1))\r");
            screen.shows("inside-2");
            screen.keys("exit 3\r");
            screen.shows("code 3");
            screen.keys("typed\r");
            screen.shows("line typed");
            assert_eq!(screen.ends(), 0);
        }
        // What goes to another program leaves the terminal to that.
        let mut screen =
            Screen::at_shell(w, &format!("{topo} exec lab/h echo a | {{ read x; read y </dev/tty; echo $x $y; }}"));
        screen.keys("b\r");
        screen.shows("a b");
        assert_eq!(screen.ends(), 0);
        w.topo(&["down", "lab"]).ok();
    });
}

/// Ctrl-Z stops a session in a sandbox with all that waits for it, and `fg` goes on.
#[test]
fn a_session_in_a_sandbox_stops_and_goes_on() {
    in_used_user_world("", |w, _| {
        let topo = w.program().display();
        let mut screen = Screen::at_shell(w, "exec bash --norc --noprofile -i");
        screen.keys(&format!("{topo} repl\r"));
        screen.prompt();
        screen.enter("let h = netns(\"h\");");
        screen.keys(CTRL_Z);
        screen.shows("Stopped");
        screen.keys("echo outside-$((1 + 1))\r");
        screen.shows("outside-2");
        screen.keys("fg\r");
        screen.shows("repl\n");
        // The editor does not write its prompt again before it has something to read.
        screen.keys("20 + 22\r");
        screen.shows("\n42\n");
        screen.begin(":quit");
        screen.shows("[y/N]");
        screen.keys("n\r");
        screen.shows("lab `repl` is down");
        screen.keys("exit\r");
        assert_eq!(screen.ends(), 0);
    });
}
