//! `keyledger verify --batch`: many credentials from one file.

use std::collections::VecDeque;
use std::path::Path;
use std::process::ExitCode;

use prost::Message as _;

use super::super::client::{Client, Session};
use super::super::failure::{FAULT, Failure, NO, Outcome};
use super::super::json_line::JsonLine;
use super::super::output::{counted, talk, warn};
use super::super::secret_text;
use super::super::view::verification::{Answer, Answers};
use crate::proto;
use crate::proto::verification_service_client::VerificationServiceClient;

/// Most questions of one call.
const QUESTIONS_MAX: usize = 1_000;
/// Most bytes of the questions of one call; a server takes 1 MiB.
const CALL_BYTES_MAX: usize = 1_000 * 1_000;
/// What a line may hold as a JSON object.
const FIELDS: &[&str] =
    &["credential", "permissions", "service", "domain", "environment", "tenant_id", "client_ip"];

/// A question, and the line of the file that asks it.
type Numbered = (usize, proto::VerifyRequest);

/// Asks about every line of a file; what a line does not say is as in `flags`.
pub(super) fn decide(client: &Client, file: &Path, flags: proto::VerifyRequest) -> Outcome {
    let name = secret_text::name_of(file);
    let questions = questions(file, &name, &flags)?;
    client.run(async |session| {
        let answers = Answers::from(ask(session, questions, &flags, &name).await?);
        session.print(&answers, || answers.to_text())?;
        let [allowed, denied, undecided] = answers.counts();
        if !session.json() {
            let (keys, are) = counted(allowed);
            talk(&format!("done: {keys} of {} {are} allowed\n", allowed + denied + undecided));
        }
        if undecided > 0 {
            warn(&format!("{undecided} could not be decided: nothing may be allowed on that"));
        }
        Ok(match (denied, undecided) {
            (0, 0) => ExitCode::SUCCESS,
            (_, 0) => ExitCode::from(NO),
            (_, _) => ExitCode::from(FAULT),
        })
    })
}

fn questions(
    file: &Path,
    name: &str,
    flags: &proto::VerifyRequest,
) -> Result<VecDeque<Numbered>, Failure> {
    let text = secret_text::read_many(file).map_err(|error| {
        Failure::fault(format!("cannot read the credentials in {name}")).because(error)
    })?;
    let mut questions = VecDeque::new();
    for (line, number) in text.lines().map(str::trim).zip(1..) {
        if line.is_empty() {
            continue;
        }
        let question = question(line, flags).map_err(|problem| {
            Failure::fault(format!("{name}, line {number}: {problem}"))
                .hint("nothing was asked; see `keyledger verify --help`")
        })?;
        questions.push_back((number, question));
    }
    if questions.is_empty() {
        return Err(Failure::fault(format!("there are no credentials in {name}")));
    }
    Ok(questions)
}

/// The question of a line, or what is wrong with the line.
fn question(line: &str, flags: &proto::VerifyRequest) -> Result<proto::VerifyRequest, String> {
    // Those stand beside the questions of a call.
    let mut question = proto::VerifyRequest {
        at_least_revision: Vec::new(),
        correlation_id: String::new(),
        ..flags.clone()
    };
    if !line.starts_with('{') {
        line.clone_into(&mut question.credential);
        return Ok(question);
    }
    let mut line = JsonLine::parse(line)?;
    question.credential = line.must("credential", "a text")?;
    let permissions = line.list("permissions")?;
    if !permissions.is_empty() {
        question.permissions = permissions;
    }
    if let Some(environment) = line.environment()? {
        question.set_environment(environment);
    }
    for (name, field) in [
        ("service", &mut question.service),
        ("domain", &mut question.domain),
        ("tenant_id", &mut question.tenant_id),
        ("client_ip", &mut question.client_ip),
    ] {
        if let Some(text) = line.may(name, "a text")? {
            *field = text;
        }
    }
    line.is_read(FIELDS)?;
    Ok(question)
}

/// Asks in as many calls as it takes; the answers in the order of the lines.
async fn ask(
    session: &Session<'_>,
    mut questions: VecDeque<Numbered>,
    flags: &proto::VerifyRequest,
    file: &str,
) -> Result<Vec<Answer>, Failure> {
    let mut service = VerificationServiceClient::new(session.channel());
    let mut answers = Vec::with_capacity(questions.len());
    while !questions.is_empty() {
        let (lines, asked): (Vec<usize>, Vec<_>) = call(&mut questions).into_iter().unzip();
        let request = session.request(proto::VerifyBatchRequest {
            questions: asked.clone(),
            at_least_revision: flags.at_least_revision.clone(),
            correlation_id: flags.correlation_id.clone(),
        })?;
        let answered = session.answer(service.verify_batch(request)).await;
        let answered = answered.map_err(|failure| explained(failure, &lines, file))?.answers;
        if answered.len() != lines.len() {
            return Err(Failure::fault("the server did not answer every question"));
        }
        let mut again = Vec::new();
        for (place, ((line, question), answer)) in
            lines.into_iter().zip(asked).zip(answered).enumerate()
        {
            let answer = Answer::of(line, answer);
            // The first of a call always fits, so this comes to an end.
            if place > 0 && answer.is_too_large() {
                again.push((line, question));
            } else {
                answers.push(answer);
            }
        }
        again.into_iter().rev().for_each(|question| questions.push_front(question));
    }
    answers.sort_by_key(Answer::line);
    Ok(answers)
}

/// As many questions as one call may hold.
fn call(questions: &mut VecDeque<Numbered>) -> Vec<Numbered> {
    let mut bytes = 0;
    let mut call = Vec::new();
    while call.len() < QUESTIONS_MAX {
        let fits = |(_, question): &mut Numbered| {
            // A tag and a length stand before each.
            bytes += question.encoded_len() + 8;
            call.is_empty() || bytes <= CALL_BYTES_MAX
        };
        let Some(question) = questions.pop_front_if(fits) else { break };
        call.push(question);
    }
    call
}

/// Says which line of the file a refusal is about.
fn explained(failure: Failure, lines: &[usize], file: &str) -> Failure {
    let place = failure.message().strip_prefix("`questions[").and_then(|it| it.split(']').next());
    match place.and_then(|it| lines.get(it.parse::<usize>().ok()?)) {
        Some(line) => failure.because(format!("that is line {line} of {file}")),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(text: &str) -> Numbered {
        (1, proto::VerifyRequest { credential: text.to_owned(), ..Default::default() })
    }

    #[test]
    fn a_call_holds_no_more_than_a_server_takes() {
        let sizes = |mut questions: VecDeque<Numbered>| {
            let mut sizes = Vec::new();
            while !questions.is_empty() {
                sizes.push(call(&mut questions).len());
            }
            sizes
        };
        assert_eq!(sizes(std::iter::repeat_n(asks("x"), 2_001).collect()), [1_000, 1_000, 1]);
        let long = asks(&"x".repeat(400_000));
        assert_eq!(sizes(std::iter::repeat_n(long, 5).collect()), [2, 2, 1]);
        // What no server takes is its to refuse.
        let huge = asks(&"x".repeat(2_000_000));
        assert_eq!(sizes([huge.clone(), asks("x"), huge].into()), [1, 1, 1]);
    }

    #[test]
    fn a_line_says_what_the_flags_do_not() {
        let flags = proto::VerifyRequest {
            permissions: vec!["a:b".to_owned()],
            service: "dns".to_owned(),
            correlation_id: "mine".to_owned(),
            ..Default::default()
        };
        let plain = question("vtx_1", &flags).unwrap();
        assert_eq!((plain.credential.as_str(), plain.service.as_str()), ("vtx_1", "dns"));
        assert_eq!(
            (plain.permissions.as_slice(), plain.correlation_id.as_str()),
            (&flags.permissions[..], "")
        );
        let line = r#"{"credential": "vtx_2", "permissions": ["c:d"], "environment": "test",
            "tenant_id": "org_1", "client_ip": "192.0.2.1"}"#;
        let own = question(line, &flags).unwrap();
        assert_eq!((own.credential.as_str(), own.service.as_str()), ("vtx_2", "dns"));
        assert_eq!(own.permissions, ["c:d"]);
        assert_eq!(own.environment(), proto::Environment::Test);
        assert_eq!((own.tenant_id.as_str(), own.client_ip.as_str()), ("org_1", "192.0.2.1"));
    }

    #[test]
    fn what_is_wrong_is_named_and_never_repeated() {
        for (line, says) in [
            (r#"{"credential": "S3CRET""#, "is not one JSON object"),
            (r#"{"credentials": "S3CRET"}"#, "lacks `credential`"),
            (r#"{"credential": ["S3CRET"]}"#, "`credential`: must be a text"),
            (r#"{"credential": "x", "permissions": "S3CRET"}"#, "must be a list of texts"),
            (r#"{"credential": "x", "permissions": []}"#, "is empty"),
            (r#"{"credential": "x", "environment": "S3CRET"}"#, "must be `live` or `test`"),
            (r#"{"credential": "x", "S3CRET": 1}"#, "has a field that is unknown"),
            (r#"{"credential": "x", "scope": "S3CRET"}"#, "field `scope` that is unknown"),
        ] {
            let problem = question(line, &proto::VerifyRequest::default()).unwrap_err();
            assert!(problem.contains(says), "{line}: {problem}");
            assert!(!problem.contains("S3CRET"), "{problem}");
        }
    }
}
