//! Colour: on a terminal, and only there, and not where somebody minds.

use crate::harness::{Scene, on_terminal};

const GREEN: &str = "\u{1b}[1;32mALLOWED\u{1b}[0m: ";
const RED: &str = "\u{1b}[1;31mPERMISSION_DENIED\u{1b}[0m: ";

#[test]
fn a_terminal_gets_colour_unless_it_minds() {
    let mut scene = Scene::new();
    let key = std::fs::read_to_string(scene.path("keyledger-data/admin.key")).unwrap();
    let org = scene.organization("Acme", "vtx");
    let made =
        scene.run(&format!("key create --org {org} --name ci --scope dns:read --secret-only"));
    let shown = |credential: &str, environment: &[(&str, &str)]| {
        let mut command = scene.command("verify --permission dns:write");
        command.env("KEYLEDGER_CREDENTIAL", credential).env("TERM", "xterm");
        on_terminal(command.envs(environment.iter().copied()))
    };
    let none: &[(&str, &str)] = &[];
    assert!(shown(key.trim(), none).starts_with(GREEN));
    assert!(shown(made.stdout.trim(), none).starts_with(RED));
    assert!(shown(key.trim(), &[("NO_COLOR", "")]).starts_with(GREEN));
    for minds in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let shown = shown(key.trim(), &[minds]);
        assert!(shown.starts_with("ALLOWED: ") && !shown.contains('\u{1b}'), "{shown:?}");
    }
}
