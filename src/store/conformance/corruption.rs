//! What is stored is given as it was written, or not at all.

use super::*;

pub(super) async fn damage_is_reported_and_hides_nothing_else(adapter: &impl Adapter) -> Verdict {
    for damage in [Damage::Stored, Damage::LeafHash, Damage::Missing] {
        let store = adapter.fresh().await;
        let names = [stream("a"), stream("b"), stream("c")];
        for number in 0..4_u64 {
            for name in &names {
                let expected = number.checked_sub(1).map(Revision);
                store.append(name, expected, events(number..number + 1), Urgency::Normal).await?;
            }
        }
        let whole = all_sound(&store, None, 100).await?;
        let [a, b, c] = &names;
        let Some(store) = adapter.damage(store, damage, b, Revision(1)).await else { continue };
        reported(&store, damage, b).await?;
        for name in [a, c] {
            let recorded = store.read_stream(name, Revision::FIRST, 100).await?;
            same(&recorded, name, Revision::FIRST, &events(0..4))?;
        }
        let found = all(&store, None, 100).await?;
        for page in [1, 2, 3] {
            ensure!(all(&store, None, page).await? == found, "{damage:?}: pages of {page} differ");
        }
        let errors = found.iter().filter(|item| item.is_err()).count();
        ensure!(errors == 1, "{damage:?}: {errors} errors for one damaged event");
        let sound: Vec<_> = found.into_iter().filter_map(Result::ok).collect();
        let wanted: Vec<_> = whole
            .into_iter()
            .filter(|item| item.recorded.stream != *b || item.recorded.revision != Revision(1))
            .collect();
        ensure!(sound == wanted, "{damage:?}: the undamaged events are not all given");
    }
    Ok(())
}

/// The damaged stream gives what stands before the damage, and an error at it.
async fn reported(store: &impl EventStore, damage: Damage, stream: &StreamName) -> Verdict {
    let before = store.read_stream(stream, Revision::FIRST, 1).await?;
    same(&before, stream, Revision::FIRST, &events(0..1))?;
    for (from, count) in [(0, 100), (0, 2), (1, 1)] {
        let found = store.read_stream(stream, Revision(from), count).await;
        let named = matches!(
            &found,
            Err(ReadError::Corrupt { stream: at, revision: Revision(1), .. }) if at == stream
        );
        ensure!(named, "{damage:?}: reading {count} from {from} gave {found:?}");
    }
    let behind = store.read_stream(stream, Revision(2), 100).await?;
    same(&behind, stream, Revision(2), &events(2..4))
}
