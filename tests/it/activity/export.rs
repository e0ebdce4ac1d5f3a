//! The log as a file: whole, the same bytes however it is put together, and nobody else's.

use keyledger::proto::audit_service_client::AuditServiceClient;
use keyledger::proto::{ExportActivityRequest, ExportActivityResponse, ExportBegin, ExportFormat};

use super::super::support::Server;
use super::*;

const FORMATS: [ExportFormat; 3] =
    [ExportFormat::JsonLines, ExportFormat::Csv, ExportFormat::OcsfCloudevents];

fn of_format(organization_id: &str, format: ExportFormat) -> ExportActivityRequest {
    let organization_id = organization_id.into();
    ExportActivityRequest { organization_id, format: format.into(), ..Default::default() }
}

/// What an export says first, and its pieces.
async fn pieces(
    server: &Server,
    client: &Client,
    request: ExportActivityRequest,
) -> (ExportBegin, Vec<ExportActivityResponse>) {
    let mut service = AuditServiceClient::new(server.channel());
    let mut stream = service.export_activity(client.request(request)).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();
    assert!(first.data.is_empty() && first.revision.is_none() && !first.complete);
    let mut pieces = Vec::new();
    while let Some(piece) = stream.message().await.unwrap() {
        assert!(piece.begin.is_none() && piece.revision.is_some());
        assert!(piece.data.is_empty() || piece.data.ends_with(b"\n"), "whole records");
        pieces.push(piece);
    }
    let complete: Vec<bool> = pieces.iter().map(|it| it.complete).collect();
    assert!(complete.split_last().is_some_and(|(last, rest)| *last && !rest.contains(&true)));
    (first.begin.unwrap(), pieces)
}

fn joined(pieces: &[ExportActivityResponse]) -> Vec<u8> {
    pieces.iter().flat_map(|it| it.data.iter().copied()).collect()
}

async fn file(server: &Server, client: &Client, request: ExportActivityRequest) -> Vec<u8> {
    joined(&pieces(server, client, request).await.1)
}

/// The cells of a table, as RFC 4180 has them; every one is quoted.
fn cells(file: &[u8]) -> Vec<Vec<String>> {
    let text = std::str::from_utf8(file).unwrap();
    let mut rows = Vec::new();
    let mut row = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        rest = rest.strip_prefix('"').expect("every cell is quoted");
        let mut cell = String::new();
        loop {
            let (part, behind) = rest.split_once('"').expect("a quote that ends");
            cell.push_str(part);
            rest = behind;
            match rest.strip_prefix('"') {
                Some(behind) => {
                    cell.push('"');
                    rest = behind;
                }
                None => break,
            }
        }
        row.push(cell);
        rest = match rest.strip_prefix(',') {
            Some(behind) => behind,
            None => {
                rows.push(std::mem::take(&mut row));
                rest.strip_prefix("\r\n").expect("a line ends in CR LF")
            }
        };
    }
    rows
}

fn lines(file: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(file).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The events of an export, by identifier.
fn ids(format: ExportFormat, file: &[u8]) -> Vec<String> {
    match format {
        ExportFormat::Csv => cells(file)[1..].iter().map(|row| row[2].clone()).collect(),
        ExportFormat::Unspecified | ExportFormat::JsonLines | ExportFormat::OcsfCloudevents => {
            lines(file).iter().map(|it| text(it, "id").to_owned()).collect()
        }
    }
}

/// The stored bytes of one organization's events.
fn stored_bytes(home: &Home, organization_id: &str) -> Vec<Vec<u8>> {
    let stream = format!("org-{organization_id}");
    let events = home.events().into_iter().filter(|it| it.stream == stream);
    events.map(|it| it.stored).collect()
}

#[tokio::test]
async fn the_pieces_of_an_export_are_the_file_wherever_it_broke_off() {
    const EVENTS: u64 = 5_000;
    let acme = Acme::new().await;
    let Acme { home, server, id, admin_secret, .. } = acme;
    server.stop().await;
    lengthen(&home, &id, EVENTS).await;
    let server = home.start().await;
    let admin = server.client(&admin_secret);
    for format in FORMATS {
        let request = of_format("", format);
        // It is recorded who exports, behind what they are given.
        let head = admin.revision(&id).await;
        assert!(head > EVENTS);
        let (begin, whole) = pieces(&server, &admin, request.clone()).await;
        assert_eq!(begin.end.as_ref().unwrap().revision, head);
        assert_eq!(begin.events_ahead, head + 1);
        let last = whole.last().unwrap();
        assert_eq!((last.events, last.records), (head + 1, head + 1));
        assert_eq!(last.revision.as_ref().unwrap().revision, head);
        assert!(whole.len() > 3, "{format:?}: {} pieces", whole.len());
        let file = joined(&whole);
        if format == ExportFormat::JsonLines {
            let stored: Vec<u8> = stored_bytes(&home, &id)
                .into_iter()
                .zip(0..=head)
                .flat_map(|(it, _)| [it, vec![b'\n']].concat())
                .collect();
            assert!(file == stored, "the stored bytes, line by line");
        }
        for taken in 0..=whole.len() {
            let told = whole[..taken].last().and_then(|it| it.revision.clone());
            let rest = ExportActivityRequest {
                after_revision: told.map(|it| it.revision),
                up_to_revision: begin.end.as_ref().map(|it| it.revision),
                ..request.clone()
            };
            let (_, rest) = pieces(&server, &admin, rest).await;
            let again = [joined(&whole[..taken]), joined(&rest)].concat();
            assert!(again == file, "{format:?} broken off behind piece {taken}");
        }
    }
    // A filter that finds nothing for long says how far it is all the same.
    let filter = ActivityFilter { correlation_id: "the-one".into(), ..Default::default() };
    for format in FORMATS {
        let request =
            ExportActivityRequest { filter: Some(filter.clone()), ..of_format("", format) };
        let (begin, found) = pieces(&server, &admin, request).await;
        assert_eq!(ids(format, &joined(&found)).len(), 1);
        assert!(begin.events_ahead > EVENTS);
        assert_eq!(found.last().unwrap().events, begin.events_ahead);
    }
    server.stop().await;
}

#[tokio::test]
async fn an_export_ends_where_it_was_when_it_began() {
    let acme = Acme::new().await;
    let head = acme.revision().await;
    let stored = stored(&acme.home, &acme.id);
    let mut service = AuditServiceClient::new(acme.server.channel());
    let request = of_format("", ExportFormat::JsonLines);
    let mut stream =
        service.export_activity(acme.admin.request(request.clone())).await.unwrap().into_inner();
    let begin = stream.message().await.unwrap().unwrap().begin.unwrap();
    assert_eq!(begin.end.unwrap().revision, head);
    let at = begin.head_at.unwrap();
    let millis = at.seconds * 1_000 + i64::from(at.nanos) / 1_000_000;
    assert_eq!(millis, at_of(stored.last().unwrap()));
    acme.key("later", &["a:b"]).await;
    let mut file = Vec::new();
    while let Some(piece) = stream.message().await.unwrap() {
        file.extend(piece.data);
    }
    assert_eq!(lines(&file), stored);
    // A part in the middle, and one of nothing.
    let part = |after, up_to| ExportActivityRequest {
        after_revision: after,
        up_to_revision: up_to,
        ..request.clone()
    };
    let middle = file_of(&acme, part(Some(0), Some(head))).await;
    assert_eq!(lines(&middle), stored[1..]);
    assert!(file_of(&acme, part(Some(head), Some(head))).await.is_empty());
    assert_eq!(lines(&file_of(&acme, part(None, Some(0))).await), stored[..1]);
    acme.server.stop().await;
}

async fn file_of(acme: &Acme, request: ExportActivityRequest) -> Vec<u8> {
    file(&acme.server, &acme.admin, request).await
}

#[tokio::test]
async fn an_export_shows_what_the_log_shows() {
    let acme = Acme::new().await;
    let mut dice = Dice(0x2026_1123);
    history(&acme, &mut dice, 60).await;
    let events = stored(&acme.home, &acme.id);
    let head = acme.revision().await;
    for _ in 0..60 {
        let (mut query, _) = random_query(&mut dice, &acme, &events);
        query.order = ActivityOrder::OldestFirst.into();
        let shown = all(&acme.operator, &query).await.into_iter();
        let shown = shown.filter(|it| it.revision <= head).map(|it| it.event_id);
        let format = *dice.pick(&FORMATS);
        let filter = query.filter.clone();
        let up_to_revision = Some(head);
        let request =
            ExportActivityRequest { filter, up_to_revision, ..of_format(&acme.id, format) };
        let (begin, found) = pieces(&acme.server, &acme.operator, request).await;
        assert!(ids(format, &joined(&found)).into_iter().eq(shown), "{format:?} {query:?}");
        assert_eq!(found.last().unwrap().events, begin.events_ahead);
    }
    acme.server.stop().await;
}

#[tokio::test]
async fn an_export_is_for_its_reader() {
    let acme = Acme::new().await;
    let formula = "=HYPERLINK(\"http://x\",\"y\")";
    let (gone, _) = acme.key(formula, &["a:b"]).await;
    revoke(&acme.admin, "", &gone, RevocationReason::Superseded, "by me, \"quoted\"\nand on").await;
    revoke_of_staff(&acme).await;
    for (reader, shows) in [(&acme.operator, true), (&acme.admin, false)] {
        let entries = all(reader, &oldest_first(&acme.id)).await;
        let of_these = |format| ExportActivityRequest {
            up_to_revision: entries.last().map(|it| it.revision),
            ..of_format(&acme.id, format)
        };
        let table = cells(&file(&acme.server, reader, of_these(ExportFormat::Csv)).await);
        let (header, rows) = table.split_first().unwrap();
        let column = |name: &str| header.iter().position(|it| it == name).unwrap();
        assert_eq!(rows.len(), entries.len());
        for (row, entry) in rows.iter().zip(&entries) {
            assert_eq!(row.len(), header.len());
            let data = entry.personal_data.clone().unwrap_or_default();
            for (name, said) in [
                ("event_id", &entry.event_id),
                ("action", &entry.action),
                ("credential_id", &entry.credential_id),
                ("sentence", &entry.sentence),
                ("reason", &entry.reason),
                ("origin_ip", &data.origin_ip),
                ("user_agent", &data.user_agent),
                ("comment", &data.comment),
            ] {
                assert_eq!(&row[column(name)], said, "{name}");
            }
        }
        assert!(rows.iter().any(|row| row[column("target_name")] == format!("'{formula}")));
        for row in &table {
            assert!(!row.iter().any(|cell| cell.starts_with(['=', '+', '-', '@', '\t', '\r'])));
        }
        let staff = |row: &&Vec<String>| row[column("comment")] == "by staff";
        let staff = rows.iter().find(staff).unwrap();
        assert_eq!(staff[column("origin_ip")] == "127.0.0.1", shows);
        let withheld = if shows { "shown" } else { "origin_withheld" };
        assert_eq!(staff[column("personal_data_state")], withheld);
        // The same as OCSF.
        let request = of_these(ExportFormat::OcsfCloudevents);
        let events = lines(&file(&acme.server, reader, request).await);
        assert_eq!(events.len(), entries.len());
        for (event, entry) in events.iter().zip(&entries) {
            assert_eq!(event["subject"], entry.target.as_ref().unwrap().id);
            assert_eq!(event["data"]["message"], entry.sentence);
            let data = entry.personal_data.clone().unwrap_or_default();
            let ip = event["data"]["src_endpoint"]["ip"].as_str().unwrap_or_default();
            assert_eq!(ip, data.origin_ip);
        }
        // Sealed for everybody, in the stored bytes.
        let request = of_these(ExportFormat::JsonLines);
        let stored = String::from_utf8(file(&acme.server, reader, request).await).unwrap();
        assert!(!stored.contains("by staff") && !stored.contains("127.0.0.1"));
    }
    acme.server.stop().await;
}
