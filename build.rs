//! Turns `proto/` into Rust: messages, clients and servers, the descriptor set for
//! reflection, and the tables by which `services::wire` checks requests.
//!
//! No protoc is needed: protox compiles the files.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};

const PACKAGE: &str = ".keyledger.v1.";
/// Messages that carry secrets: `src/proto.rs` writes their `Debug` by hand.
const SECRET_MESSAGES: [&str; 24] = [
    ".keyledger.v1.VerifyRequest",
    ".keyledger.v1.OpenGrantResponse",
    ".keyledger.v1.EventKey",
    ".keyledger.v1.CreateKeyResponse",
    ".keyledger.v1.RotateKeyResponse",
    ".keyledger.v1.ImportedKey",
    ".keyledger.v1.KeyList",
    ".keyledger.v1.LoginRequest",
    ".keyledger.v1.InviteUserResponse",
    ".keyledger.v1.RenewInvitationResponse",
    ".keyledger.v1.AcceptInvitationRequest",
    ".keyledger.v1.Tokens",
    ".keyledger.v1.RefreshRequest",
    ".keyledger.v1.StepUpRequest",
    ".keyledger.v1.EnrollTotpRequest",
    ".keyledger.v1.EnrollTotpResponse",
    ".keyledger.v1.ConfirmTotpRequest",
    ".keyledger.v1.ConfirmTotpResponse",
    ".keyledger.v1.RemoveTotpRequest",
    ".keyledger.v1.NewRecoveryCodesRequest",
    ".keyledger.v1.NewRecoveryCodesResponse",
    ".keyledger.v1.ChangePasswordRequest",
    ".keyledger.v1.RequestPasswordResetResponse",
    ".keyledger.v1.ResetPasswordRequest",
];
/// Repeated fields whose values are counted before anything is decoded: an empty message
/// is two bytes on the wire and a hundred times as many behind it.
const COUNTED: [(&str, &str, usize); 1] =
    [(".keyledger.v1.VerifyBatchRequest", "questions", 1_000)];
/// Singular fields and maps of one message: each has a bit in a `u64`.
const SLOTS_MAX: u8 = 64;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let root = Path::new("proto");
    let sources = proto_files(&root.join("keyledger/v1"))?;
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed=build.rs");
    for source in &sources {
        println!("cargo::rerun-if-changed={}", source.display());
    }

    let descriptors = protox::compile(&sources, [root])?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    fs::write(out.join("keyledger_descriptor.bin"), descriptors.encode_to_vec())?;
    let (tables, requests) = Tables::of(&descriptors).generate()?;
    fs::write(out.join("wire_tables.rs"), tables)?;
    fs::write(out.join("wire_requests.rs"), requests)?;

    tonic_prost_build::configure()
        .codec_path("crate::services::wire::StrictCodec")
        .btree_map(".")
        .bytes(".keyledger.v1.ExportActivityResponse.data")
        .skip_debug(SECRET_MESSAGES)
        .compile_fds(descriptors)?;
    stand_in()
}

/// The part of an event store engine's protocol that the tests' stand-in speaks.
fn stand_in() -> Outcome<()> {
    let root = Path::new("tests/it/engine/proto");
    println!("cargo::rerun-if-changed={}", root.display());
    if env::var_os("CARGO_FEATURE_EVENTSTORE").is_some() && root.exists() {
        let descriptors = protox::compile(proto_files(root)?, [root])?;
        tonic_prost_build::configure().build_client(false).compile_fds(descriptors)?;
    }
    Ok(())
}

/// The `.proto` files of a directory, sorted, so that the same tree gives the same code.
fn proto_files(directory: &Path) -> Outcome<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// What the tables are made of, by full name with a leading dot.
struct Tables<'a> {
    messages: BTreeMap<String, &'a DescriptorProto>,
    enums: BTreeMap<String, Vec<i32>>,
    inputs: BTreeSet<String>,
    outputs: BTreeSet<String>,
}

impl<'a> Tables<'a> {
    fn of(descriptors: &'a FileDescriptorSet) -> Self {
        let mut tables = Self {
            messages: BTreeMap::new(),
            enums: BTreeMap::new(),
            inputs: BTreeSet::new(),
            outputs: BTreeSet::new(),
        };
        for file in &descriptors.file {
            let scope = format!(".{}", file.package());
            for message in &file.message_type {
                tables.add_message(&scope, message);
            }
            for kind in &file.enum_type {
                tables.add_enum(&scope, kind);
            }
            for method in file.service.iter().flat_map(|service| &service.method) {
                tables.inputs.insert(method.input_type().to_owned());
                tables.outputs.insert(method.output_type().to_owned());
            }
        }
        tables
    }

    fn add_message(&mut self, scope: &str, message: &'a DescriptorProto) {
        let name = format!("{scope}.{}", message.name());
        for nested in &message.nested_type {
            self.add_message(&name, nested);
        }
        for kind in &message.enum_type {
            self.add_enum(&name, kind);
        }
        self.messages.insert(name, message);
    }

    fn add_enum(&mut self, scope: &str, kind: &prost_types::EnumDescriptorProto) {
        let mut numbers: Vec<i32> = kind.value.iter().map(|value| value.number()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        self.enums.insert(format!("{scope}.{}", kind.name()), numbers);
    }

    fn message(&self, name: &str) -> Outcome<&'a DescriptorProto> {
        Ok(self.messages.get(name).ok_or_else(|| format!("no message `{name}`"))?)
    }

    /// The statics, and the implementations that bind request types to them.
    fn generate(&self) -> Outcome<(String, String)> {
        let mut statics = String::new();
        let mut done = BTreeSet::new();
        let mut waiting: Vec<String> = self.inputs.iter().cloned().collect();
        while let Some(name) = waiting.pop() {
            if done.insert(name.clone()) {
                waiting.extend(self.write_message(&mut statics, &name)?);
            }
        }
        let mut implementations = String::new();
        for name in self.inputs.union(&self.outputs) {
            let table = if self.inputs.contains(name) {
                format!("Some(&table::{})", static_name(name))
            } else {
                "None".to_owned()
            };
            let rust = rust_type(name)?;
            writeln!(
                implementations,
                "impl WireMessage for {rust} {{ const REQUEST: Option<&'static Message> = {table}; }}"
            )?;
        }
        Ok((statics, implementations))
    }

    /// Writes one table and gives the messages it points to.
    fn write_message(&self, out: &mut String, name: &str) -> Outcome<Vec<String>> {
        let message = self.message(name)?;
        let mut fields: Vec<&FieldDescriptorProto> = message.field.iter().collect();
        fields.sort_by_key(|field| field.number());
        let mut oneofs: BTreeMap<i32, (u8, String)> = BTreeMap::new();
        let mut next_slot = 0;
        let mut slot = || {
            next_slot += 1;
            if next_slot > SLOTS_MAX {
                Err("a message has too many fields")
            } else {
                Ok(next_slot - 1)
            }
        };
        let mut found = Vec::new();
        writeln!(
            out,
            "pub(super) static {}: Message = Message {{ name: {:?}, fields: &[",
            static_name(name),
            name.trim_start_matches('.')
        )?;
        for field in fields {
            let (kind, label) = self.kind_and_label(field)?;
            if field.r#type() == Type::Message {
                found.push(field.type_name().to_owned());
            }
            let oneof = field.oneof_index.filter(|_| !field.proto3_optional());
            let counted = COUNTED.iter().find(|it| it.0 == name && it.1 == field.name());
            let at_most = counted.map_or(0, |it| it.2);
            let (slot, members) = match (label, oneof) {
                ("Repeated", _) if at_most > 0 => (slot()?, String::new()),
                ("Repeated", _) => (0, String::new()),
                (_, None) => (slot()?, String::new()),
                (_, Some(index)) => match oneofs.get(&index) {
                    Some(shared) => shared.clone(),
                    None => {
                        let shared = (slot()?, oneof_members(message, index));
                        oneofs.insert(index, shared.clone());
                        shared
                    }
                },
            };
            writeln!(
                out,
                "    Field {{ number: {}, name: {:?}, kind: Kind::{kind}, label: Label::{label}, slot: {slot}, oneof: &[{members}], at_most: {at_most} }},",
                field.number(),
                field.name(),
            )?;
        }
        writeln!(out, "] }};")?;
        Ok(found)
    }

    fn kind_and_label(&self, field: &FieldDescriptorProto) -> Outcome<(String, &'static str)> {
        let mut label = if field.label() == Label::Repeated { "Repeated" } else { "Singular" };
        let kind = match field.r#type() {
            Type::Bool => "Bool".to_owned(),
            Type::Int32 => "Int32".to_owned(),
            Type::Uint32 | Type::Sint32 => "Uint32".to_owned(),
            Type::Int64 | Type::Uint64 | Type::Sint64 => "Varint64".to_owned(),
            Type::Fixed32 | Type::Sfixed32 | Type::Float => "Fixed32".to_owned(),
            Type::Fixed64 | Type::Sfixed64 | Type::Double => "Fixed64".to_owned(),
            Type::String => "String".to_owned(),
            Type::Bytes => "Bytes".to_owned(),
            Type::Enum => {
                let name = field.type_name();
                let numbers = self.enums.get(name).ok_or_else(|| format!("no enum `{name}`"))?;
                format!("Enum(&{numbers:?})")
            }
            Type::Message => {
                let name = field.type_name();
                let target = self.message(name)?;
                if target.options.as_ref().is_some_and(|options| options.map_entry()) {
                    // `services::wire` compares keys as bytes, which only texts allow.
                    if target.field.iter().any(|f| f.number() == 1 && f.r#type() != Type::String) {
                        return Err(
                            format!("the keys of map `{}` are no strings", field.name()).into()
                        );
                    }
                    label = "Map";
                }
                format!("Message(&{})", static_name(name))
            }
            Type::Group => return Err(format!("field `{}` is a group", field.name()).into()),
        };
        Ok((kind, label))
    }
}

fn oneof_members(message: &DescriptorProto, index: i32) -> String {
    let members = message.field.iter().filter(|field| field.oneof_index == Some(index));
    members.map(|field| format!("{:?}, ", field.name())).collect()
}

/// `.keyledger.v1.VerifyRequest` → `KEYLEDGER_V1_VERIFYREQUEST`.
fn static_name(name: &str) -> String {
    name.trim_start_matches('.').replace('.', "_").to_uppercase()
}

/// The generated type of a message of our own package.
fn rust_type(name: &str) -> Outcome<String> {
    match name.strip_prefix(PACKAGE) {
        Some(own) if !own.contains('.') => Ok(format!("crate::proto::{own}")),
        _ => Err(format!("a method takes or gives `{name}`; use a message of this package").into()),
    }
}
