//! The messages, made from the `.proto` files beside this.

#![allow(unreachable_pub, missing_docs, clippy::all, reason = "generated")]

pub(crate) mod client {
    include!(concat!(env!("OUT_DIR"), "/event_store.client.rs"));

    pub(crate) mod streams {
        include!(concat!(env!("OUT_DIR"), "/event_store.client.streams.rs"));
    }
    pub(crate) mod gossip {
        include!(concat!(env!("OUT_DIR"), "/event_store.client.gossip.rs"));
    }
    pub(crate) mod server_features {
        include!(concat!(env!("OUT_DIR"), "/event_store.client.server_features.rs"));
    }
}
