//! `verify --batch`: many credentials from one file.

use expect_test::expect_file;

use crate::harness::{Scene, output};

fn made(scene: &Scene, line: &str) -> (String, String) {
    let made = output(&mut scene.command(&format!("key create {line} --json")), "");
    assert_eq!(made.code, 0, "{}", made.stderr);
    let json = made.json();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    (text(&json["key"]["id"]), text(&json["secret"]))
}

#[test]
fn every_line_is_answered_and_none_is_repeated() {
    let mut scene = Scene::new();
    let org = scene.organization("Acme", "vtx");
    let (_, reader) = made(&scene, &format!("--org {org} --name reader --scope dns:read"));
    let (_, writer) =
        made(&scene, &format!("--org {org} --name writer --scope dns:write --service dns"));
    let (id, gone) = made(&scene, &format!("--org {org} --name gone --scope dns:read"));
    assert_eq!(output(&mut scene.command(&format!("key revoke {id} --org {org}")), "").code, 0);
    let own =
        format!(r#"{{"credential": "{writer}", "permissions": ["dns:write"], "service": "dns"}}"#);
    scene.write("good", &format!("{reader}\n\n  {reader}\r\n{own}\n"));
    let ask = "verify --permission dns:read --batch";
    assert_eq!(scene.run(&format!("{ask} good")).code, 0);
    assert_eq!(scene.run(&format!("{ask} good --service waf")).code, 0);
    scene.write("mixed", &format!("{reader}\n{gone}\n{writer}\n{reader}x\n{own}"));
    assert_eq!(scene.run(&format!("{ask} mixed")).code, 1);
    assert_eq!(scene.run(&format!("{ask} mixed --json --correlation-id mine")).code, 1);
    // From standard input, too, and from there alone.
    let piped = output(&mut scene.command(&format!("{ask} -")), &format!("{reader}\n{gone}\n"));
    assert_eq!((piped.code, piped.stderr.as_str()), (1, "done: 1 key of 2 is allowed\n"));

    // Not one was asked about where the file, or a flag, is wrong.
    for line in [
        r#"{"credential": "vtx_this_is_a_secret""#,
        r#"{"credential": "x", "credentials": "vtx_this_is_a_secret"}"#,
        r#"{"credential": "x", "service": ["vtx_this_is_a_secret"]}"#,
    ] {
        scene.write("wrong", &format!("{reader}\n\n{line}\n"));
        assert_eq!(scene.run("verify --batch wrong").code, 2, "{line}");
    }
    scene.write("wrong", &format!("\n{reader}\n{{\"credential\": \"x\", \"client_ip\": \"y\"}}\n"));
    assert_eq!(scene.run("verify --batch wrong").code, 2);
    scene.write("empty", "\n \n");
    for line in [
        "verify --batch empty",
        "verify --batch missing",
        "verify --batch good vtx_this_is_a_secret",
        "verify --batch good --credential-file good",
        "verify --batch good --permission nonsense",
    ] {
        let output = scene.run(line);
        assert_eq!(output.code, 2, "{line}");
        assert!(!output.stderr.contains("this_is_a_secret"), "{line}");
    }
    let secrets = [reader, writer, gone].map(|it| it[it.len() - 8..].to_owned());
    let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
    scene.holds_none_of(&secrets);
    scene.check(&expect_file!["golden/batch.txt"]);
}

/// More than one call takes, and more than the answer of one call holds.
#[test]
fn a_long_file_takes_several_calls() {
    let scene = Scene::new();
    let mut line = "--org operator --name large --scope a:b".to_owned();
    for number in 0..30 {
        line.push_str(&format!(" --metadata entry-{number}={}", "x".repeat(240)));
    }
    let (_, secret) = made(&scene, &line);
    let lines: Vec<String> = (0..1_250)
        .map(|number| if number % 5 == 0 { secret.clone() } else { format!("vtx_{number}") })
        .collect();
    scene.write("many", &lines.join("\n"));
    let asked = output(&mut scene.command("verify --batch many --json"), "");
    assert_eq!(asked.code, 1, "{}", asked.stderr);
    check(&asked.json(), 1_250, 5);
    // Answers of 8 KiB each, of which a call holds 3 MiB.
    scene.write("many", &format!("{secret}\n").repeat(1_100));
    let asked = output(&mut scene.command("verify --batch many --json"), "");
    assert_eq!((asked.code, asked.stderr.as_str()), (0, ""));
    check(&asked.json(), 1_100, 1);
}

/// Whether there is a decision for each line, in order, and every so many of them is yes.
fn check(json: &serde_json::Value, lines: usize, every: usize) {
    let answers = json["answers"].as_array().unwrap();
    assert_eq!(answers.len(), lines);
    for (number, answer) in answers.iter().enumerate() {
        assert_eq!(answer["line"], number + 1);
        assert_eq!(answer["decision"]["allowed"], number % every == 0, "line {}", number + 1);
    }
}
