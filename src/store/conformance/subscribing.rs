//! Subscriptions: every event once, in order, from a place on.

use std::future::poll_fn;
use std::task::Poll;

use super::appending::joined;
use super::*;

pub(super) async fn what_is_stored_comes_first_then_what_is_new(adapter: &impl Adapter) -> Verdict {
    let store = adapter.fresh().await;
    let a = stream("a");
    fill(&store, &a, 0..10).await?;
    let stored = all_sound(&store, None, 100).await?;
    let place = stored.get(3).map(|item| item.position);
    let mut from_start = store.subscribe_all(None);
    let mut from_place = store.subscribe_all(place);
    for item in &stored {
        ensure!(following(&mut *from_start).await? == *item, "catching up from the start");
    }
    for item in stored.iter().skip(4) {
        ensure!(following(&mut *from_place).await? == *item, "catching up from a place");
    }
    for number in 10..20 {
        let expected = Some(Revision(number - 1));
        store.append(&a, expected, events(number..number + 1), Urgency::Normal).await?;
        for subscription in [&mut from_start, &mut from_place] {
            let item = following(&mut **subscription).await?;
            same(&[item.recorded], &a, Revision(number), &events(number..number + 1))?;
        }
    }
    Ok(())
}

pub(super) async fn nothing_is_lost_or_repeated_under_load(adapter: &impl Adapter) -> Verdict {
    const STREAMS: u64 = 8;
    const EVENTS: u64 = 200;
    let store = Arc::new(adapter.fresh().await);
    let mut early = store.subscribe_all(None);
    let writers = (0..STREAMS)
        .map(|number| {
            let store = Arc::clone(&store);
            tokio::spawn(
                async move { fill(&*store, &stream(&number.to_string()), 0..EVENTS).await },
            )
        })
        .collect();
    let count = usize::try_from(STREAMS * EVENTS).unwrap_or(usize::MAX);
    let mut seen = Vec::new();
    let mut late = None;
    while seen.len() < count {
        seen.push(following(&mut *early).await?);
        if seen.len() == count / 2 {
            late = Some(store.subscribe_all(None));
        }
    }
    joined(writers).await?;
    ensure!(seen == all_sound(&*store, None, 100).await?, "live differs from what is stored");
    let Some(mut late) = late else { return Err(Violation("no late subscription".to_owned())) };
    for item in &seen {
        ensure!(following(&mut *late).await? == *item, "a late subscription differs");
    }
    Ok(())
}

pub(super) async fn a_dropped_wait_loses_nothing(adapter: &impl Adapter) -> Verdict {
    let store = adapter.fresh().await;
    let a = stream("a");
    let mut subscription = store.subscribe_all(None);
    for number in 0..50_u64 {
        let expected = number.checked_sub(1).map(Revision);
        let append = store.append(&a, expected, events(number..number + 1), Urgency::Normal);
        // Polled a few times at most, wherever it may stand, then dropped.
        let mut early = None;
        for _ in 0..number % 4 {
            let mut next = subscription.next();
            let polled = poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx))).await;
            if let Poll::Ready(item) = polled {
                early = item;
                break;
            }
        }
        append.await?;
        let item = match early {
            Some(item) => item.map_err(|(_, error)| error)?,
            None => following(&mut *subscription).await?,
        };
        same(&[item.recorded], &a, Revision(number), &events(number..number + 1))?;
    }
    Ok(())
}
