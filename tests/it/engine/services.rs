//! The stand-in's answers.

use std::pin::Pin;
use std::sync::Arc;

use base64::Engine as _;
use tokio_stream::Stream;
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status, Streaming};

use super::log::{Append, Entry, Expected};
use super::protocol::client::gossip::gossip_server::{Gossip, GossipServer};
use super::protocol::client::gossip::{ClusterInfo, EndPoint, MemberInfo};
use super::protocol::client::server_features::server_features_server::{
    ServerFeatures, ServerFeaturesServer,
};
use super::protocol::client::server_features::{SupportedMethod, SupportedMethods};
use super::protocol::client::streams::streams_server::{Streams, StreamsServer};
use super::protocol::client::streams::{
    AppendReq, AppendResp, ReadReq, ReadResp, append_req, append_resp, read_req, read_resp,
};
use super::protocol::client::{Empty, StreamIdentifier, Uuid, uuid};
use super::{AppendFault, ReadFault, Shared, State};

const LEADER: i32 = 8;
const FOLLOWER: i32 = 6;

#[derive(Clone)]
struct Node {
    shared: Arc<Shared>,
    number: usize,
}

/// All that one node answers.
pub(super) fn routes(shared: &Arc<Shared>, number: usize) -> Routes {
    let node = Node { shared: Arc::clone(shared), number };
    Routes::new(StreamsServer::new(node.clone()).max_decoding_message_size(4 << 20))
        .add_service(GossipServer::new(node.clone()))
        .add_service(ServerFeaturesServer::new(node))
        .prepare()
}

impl Node {
    /// Whether this caller may call this node.
    fn admit<T>(&self, request: &Request<T>) -> Result<(), Status> {
        if let Some(user) = &self.shared.access.user {
            let wanted = base64::engine::general_purpose::STANDARD.encode(user);
            let given = request.metadata().get("authorization");
            if given.is_none_or(|given| given.as_bytes() != format!("Basic {wanted}").as_bytes()) {
                return Err(Status::unauthenticated("Unauthenticated"));
            }
        }
        let state = self.shared.lock();
        let leads = state.leader == self.number;
        if !leads && request.metadata().get("requires-leader").is_some_and(|it| it == "true") {
            return Err(not_leader(state.nodes.get(state.leader).map(ToString::to_string)));
        }
        Ok(())
    }
}

fn not_leader(leader: Option<String>) -> Status {
    if leader.is_none() {
        return Status::aborted("No leader info available in response");
    }
    let mut status = Status::not_found("Leader info available");
    status.metadata_mut().insert("exception", "not-leader".parse().unwrap());
    if let Some((host, port)) = leader.as_deref().and_then(|leader| leader.rsplit_once(':')) {
        status.metadata_mut().insert("leader-endpoint-host", host.parse().unwrap());
        status.metadata_mut().insert("leader-endpoint-port", port.parse().unwrap());
    }
    status
}

fn deleted() -> Status {
    let mut status = Status::failed_precondition("Event stream is deleted.");
    status.metadata_mut().insert("exception", "stream-deleted".parse().unwrap());
    status
}

#[tonic::async_trait]
impl Streams for Node {
    type ReadStream = Pin<Box<dyn Stream<Item = Result<ReadResp, Status>> + Send>>;

    async fn read(&self, request: Request<ReadReq>) -> Result<Response<Self::ReadStream>, Status> {
        self.admit(&request)?;
        let options = request.into_inner().options.unwrap();
        let mut state = self.shared.lock();
        state.reads += 1;
        if let Some(read_req::options::StreamOption::Stream(asked)) = &options.stream_option {
            state.doubts.remove(&name(asked.stream_identifier.clone()));
        }
        self.shared.changed.notify_all();
        if state.read_fault == Some(ReadFault::Refuse) {
            return Err(Status::unavailable("Server Is Too Busy"));
        }
        let answers = answers(&state, &options)?;
        drop(state);
        Ok(Response::new(Box::pin(tokio_stream::iter(answers.into_iter().map(Ok)))))
    }

    async fn append(
        &self,
        request: Request<Streaming<AppendReq>>,
    ) -> Result<Response<AppendResp>, Status> {
        self.admit(&request)?;
        let append = received(request.into_inner()).await?;
        let number = {
            let mut state = self.shared.lock();
            state.appends += 1;
            state.appends
        };
        self.shared.changed.notify_all();
        while self.shared.lock().is_held(number) {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        let answer = self.carry_out(append);
        self.shared.changed.notify_all();
        match answer {
            Some(answer) => answer.map(Response::new),
            None => std::future::pending().await,
        }
    }
}

impl Node {
    /// Carries out an append; none where nobody is ever answered.
    fn carry_out(&self, append: Append) -> Option<Result<AppendResp, Status>> {
        let mut state = self.shared.lock();
        state.blind += usize::from(state.doubts.remove(&append.stream));
        if append.expected == Expected::Any {
            state.unconditional += 1;
        }
        let bytes: usize = append.entries.iter().map(|it| it.data.len()).sum();
        if bytes > state.log.append_bytes_max {
            let most = state.log.append_bytes_max;
            let what = format!("Maximum Append Size of {most} Exceeded.");
            return Some(Err(Status::invalid_argument(what)));
        }
        if state.log.tombs.contains(&append.stream) {
            return Some(Err(deleted()));
        }
        let holds = |entry: &Entry, text: &str| {
            entry.data.windows(text.len()).any(|it| it == text.as_bytes())
        };
        if let Some(text) = &state.unacceptable
            && append.entries.iter().any(|entry| holds(entry, text))
        {
            return Some(Err(Status::invalid_argument("such an event is not taken")));
        }
        let cut = || Some(Err(Status::new(Code::Unavailable, "connection reset")));
        if state.refused.iter().any(|it| append.stream.starts_with(it)) {
            state.refused_appends.insert(append.stream.clone());
            state.doubts.insert(append.stream.clone());
            return cut();
        }
        let fault = match append.stream.contains("node-") {
            // Renewals come when they come.
            true => None,
            false => state.append_faults.pop_front(),
        };
        if fault.is_some() {
            state.doubts.insert(append.stream.clone());
        }
        match fault {
            Some(AppendFault::CutBeforeCommit) => return cut(),
            Some(AppendFault::NoLeader) => return Some(Err(not_leader(None))),
            Some(AppendFault::LateCommit) => {
                state.late.push(append);
                return None;
            }
            Some(AppendFault::CutAfterCommit) => {
                let _ = state.log.append(append);
                return cut();
            }
            Some(AppendFault::SilentAfterCommit) => {
                let _ = state.log.append(append);
                return None;
            }
            Some(AppendFault::LieAboutRevision) => {
                let outcome = state.log.append(append);
                return Some(Ok(answer(outcome.map(|(revision, at)| (revision + 1, at)))));
            }
            None => {}
        }
        Some(Ok(answer(state.log.append(append))))
    }
}

async fn received(mut messages: Streaming<AppendReq>) -> Result<Append, Status> {
    use append_req::options::ExpectedStreamRevision;
    let mut append = Append { stream: String::new(), expected: Expected::Any, entries: Vec::new() };
    while let Some(message) = messages.message().await? {
        match message.content {
            Some(append_req::Content::Options(options)) => {
                append.stream = name(options.stream_identifier);
                append.expected = match options.expected_stream_revision {
                    Some(ExpectedStreamRevision::Revision(revision)) => {
                        Expected::Revision(revision)
                    }
                    Some(ExpectedStreamRevision::NoStream(_)) => Expected::NoStream,
                    _ => Expected::Any,
                };
            }
            Some(append_req::Content::ProposedMessage(message)) => append.entries.push(Entry {
                stream: String::new(),
                revision: 0,
                id: text_of(message.id),
                metadata: message.metadata.into_iter().collect(),
                custom_metadata: message.custom_metadata,
                data: message.data,
                position: 0,
                gone: false,
            }),
            None => return Err(Status::invalid_argument("no content")),
        }
    }
    Ok(append)
}

fn answer(outcome: Result<(u64, u64), Option<u64>>) -> AppendResp {
    use append_resp::success::{CurrentRevisionOption, PositionOption};
    use append_resp::wrong_expected_version as wrong;
    let result = match outcome {
        Ok((revision, position)) => append_resp::Result::Success(append_resp::Success {
            current_revision_option: Some(CurrentRevisionOption::CurrentRevision(revision)),
            position_option: Some(PositionOption::Position(append_resp::Position {
                commit_position: position,
                prepare_position: position,
            })),
        }),
        Err(current) => {
            append_resp::Result::WrongExpectedVersion(append_resp::WrongExpectedVersion {
                current_revision_option: Some(match current {
                    Some(revision) => wrong::CurrentRevisionOption::CurrentRevision(revision),
                    None => wrong::CurrentRevisionOption::CurrentNoStream(Empty {}),
                }),
                expected_revision_option: Some(wrong::ExpectedRevisionOption::ExpectedNoStream(
                    Empty {},
                )),
            })
        }
    };
    AppendResp { result: Some(result) }
}

fn answers(state: &State, options: &read_req::Options) -> Result<Vec<ReadResp>, Status> {
    use read_req::options::{CountOption, StreamOption};
    let Some(CountOption::Count(count)) = options.count_option else {
        return Err(Status::unimplemented("only counted reads"));
    };
    if count == 0 {
        return Err(Status::invalid_argument("count must be positive"));
    }
    let count = usize::try_from(count).unwrap();
    let records_max = match state.read_fault {
        Some(ReadFault::PastAt(records)) => records,
        _ => usize::MAX,
    };
    let found: Vec<&Entry> = match options.stream_option.as_ref().unwrap() {
        StreamOption::Stream(asked)
            if state.log.tombs.contains(&name(asked.stream_identifier.clone())) =>
        {
            return Err(deleted());
        }
        StreamOption::Stream(asked) => match of_stream(state, asked, count, records_max) {
            Some(found) => found,
            None => {
                let not_found = read_resp::StreamNotFound {
                    stream_identifier: asked.stream_identifier.clone(),
                };
                let content = read_resp::Content::StreamNotFound(not_found);
                return Ok(vec![ReadResp { content: Some(content) }]);
            }
        },
        StreamOption::All(asked) => of_all(state, asked, count, records_max)?,
    };
    let twice = if state.read_fault == Some(ReadFault::AnswerTwice) { 2 } else { 1 };
    let mut answers: Vec<ReadResp> = found
        .into_iter()
        .flat_map(|entry| std::iter::repeat_n(entry, twice))
        .take(count)
        .map(|entry| event(entry, state.read_fault))
        .collect();
    let content = Some(read_resp::Content::LastStreamPosition(0));
    answers.push(ReadResp { content });
    Ok(answers)
}

fn of_stream<'a>(
    state: &'a State,
    asked: &read_req::options::StreamOptions,
    count: usize,
    records_max: usize,
) -> Option<Vec<&'a Entry>> {
    use read_req::options::stream_options::RevisionOption;
    let entries = state.log.stream(&name(asked.stream_identifier.clone()), records_max)?;
    let from = match asked.revision_option {
        Some(RevisionOption::Revision(revision)) => revision,
        Some(RevisionOption::End(_)) => {
            return Some(entries.last().into_iter().copied().collect());
        }
        _ => 0,
    };
    Some(entries.into_iter().filter(|entry| entry.revision >= from).take(count).collect())
}

fn of_all<'a>(
    state: &'a State,
    asked: &read_req::options::AllOptions,
    count: usize,
    records_max: usize,
) -> Result<Vec<&'a Entry>, Status> {
    use read_req::options::all_options::AllOption;
    let entries = state.log.entries.iter().take(records_max);
    let from = match &asked.all_option {
        Some(AllOption::Position(position)) => {
            let is_record = |it: &Entry| it.position == position.commit_position;
            if position.commit_position != position.prepare_position
                || !state.log.entries.iter().any(is_record)
            {
                return Err(Status::invalid_argument("no record at that position"));
            }
            position.commit_position
        }
        _ => 0,
    };
    let there = |it: &&Entry| it.position >= from && !it.gone;
    Ok(entries.filter(there).take(count).collect())
}

fn event(entry: &Entry, fault: Option<ReadFault>) -> ReadResp {
    let mut data = entry.data.clone();
    if fault == Some(ReadFault::LieAboutBytes)
        && let Some(byte) = data.last_mut()
    {
        *byte ^= 1;
    }
    let identifier = StreamIdentifier { stream_name: entry.stream.clone().into_bytes() };
    let recorded = read_resp::read_event::RecordedEvent {
        id: Some(Uuid { value: Some(uuid::Value::String(entry.id.clone())) }),
        stream_identifier: (fault != Some(ReadFault::Nonsense)).then_some(identifier),
        stream_revision: entry.revision,
        prepare_position: entry.position,
        commit_position: entry.position,
        metadata: entry.metadata.clone().into_iter().collect(),
        custom_metadata: entry.custom_metadata.clone(),
        data,
    };
    let event = read_resp::ReadEvent {
        event: Some(recorded),
        link: None,
        position: Some(read_resp::read_event::Position::CommitPosition(entry.position)),
    };
    ReadResp { content: Some(read_resp::Content::Event(event)) }
}

fn name(identifier: Option<StreamIdentifier>) -> String {
    String::from_utf8(identifier.unwrap().stream_name).unwrap()
}

fn text_of(id: Option<Uuid>) -> String {
    match id.unwrap().value.unwrap() {
        uuid::Value::String(text) => text,
        uuid::Value::Structured(halves) => {
            let bits = u128::from(halves.most_significant_bits.cast_unsigned()) << 64
                | u128::from(halves.least_significant_bits.cast_unsigned());
            let text = format!("{bits:032x}");
            [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]].join("-")
        }
    }
}

#[tonic::async_trait]
impl Gossip for Node {
    async fn read(&self, _: Request<Empty>) -> Result<Response<ClusterInfo>, Status> {
        let state = self.shared.lock();
        let members = state.nodes.iter().enumerate().map(|(number, address)| MemberInfo {
            instance_id: None,
            time_stamp: 0,
            state: if number == state.leader { LEADER } else { FOLLOWER },
            is_alive: true,
            http_end_point: Some(EndPoint {
                address: address.ip().to_string(),
                port: address.port().into(),
            }),
        });
        Ok(Response::new(ClusterInfo { members: members.collect() }))
    }
}

#[tonic::async_trait]
impl ServerFeatures for Node {
    async fn get_supported_methods(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<SupportedMethods>, Status> {
        let method = |name: &str| SupportedMethod {
            method_name: name.to_owned(),
            service_name: "event_store.client.streams.streams".to_owned(),
            features: Vec::new(),
        };
        Ok(Response::new(SupportedMethods {
            methods: ["read", "append", "batchappend"].map(method).to_vec(),
            event_store_server_version: "24.10.0".to_owned(),
        }))
    }
}
