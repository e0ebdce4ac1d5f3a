use super::*;
use crate::vault::memory::MemoryVault;

const IDLE_MS: i64 = 1_000;

fn organization() -> OrganizationId {
    OrganizationId::from_parts(1_700_000_000_000, 1)
}

fn session(n: u128) -> SessionId {
    SessionId::from_parts(1_700_000_000_000, n)
}

fn at(ms: i64) -> Timestamp {
    Timestamp::default().saturating_add_millis(ms)
}

fn end() -> Timestamp {
    at(10_000)
}

fn tokens() -> (Arc<MemoryVault>, RefreshTokens) {
    let vault = Arc::new(MemoryVault::new());
    (Arc::clone(&vault), RefreshTokens::new(vault, IDLE_MS))
}

async fn use_at(tokens: &RefreshTokens, text: &str, ms: i64) -> Result<Secret, &'static str> {
    let presented = PresentedRefresh::read(text).ok_or("no token")?;
    match tokens.rotate(&presented, end(), at(ms)).await.map_err(|_| "error")? {
        Rotation::Rotated(next) => Ok(next),
        Rotation::Reused => Err("reused"),
        Rotation::Raced => Err("raced"),
        Rotation::Unknown => Err("unknown"),
        Rotation::Expired => Err("expired"),
    }
}

async fn told(tokens: &RefreshTokens, text: &str, ms: i64) -> &'static str {
    use_at(tokens, text, ms).await.err().unwrap_or("rotated")
}

#[tokio::test]
async fn each_use_replaces_it_and_any_earlier_one_is_reuse() {
    let (_, tokens) = tokens();
    let mut all = vec![tokens.start(organization(), session(1), end(), at(0)).await.unwrap()];
    for use_number in 0..5 {
        let current = all.last().unwrap();
        let presented = PresentedRefresh::read(current.expose()).unwrap();
        assert_eq!(presented.organization_id(), organization());
        assert_eq!(presented.session_id(), session(1));
        all.push(use_at(&tokens, current.expose(), use_number).await.ok().unwrap());
    }
    let (current, earlier) = all.split_last().unwrap();
    for token in earlier {
        assert_eq!(told(&tokens, token.expose(), 6).await, "reused");
        // Whoever is told so ends the session; until then nothing has changed.
        assert_eq!(told(&tokens, token.expose(), 60_000).await, "reused");
    }
    assert_eq!(told(&tokens, current.expose(), 6).await, "rotated");
    assert_eq!(told(&tokens, current.expose(), 6).await, "reused");
    let again = tokens.start(organization(), session(1), end(), at(0)).await.err();
    assert_eq!(again, Some(RefreshError::AlreadyStarted));
}

#[tokio::test]
async fn what_was_never_a_token_ends_nothing() {
    let (_, tokens) = tokens();
    let token = tokens.start(organization(), session(1), end(), at(0)).await.unwrap();
    let other = tokens.start(organization(), session(2), end(), at(0)).await.unwrap();
    let (_, elsewhere) = self::tokens();
    assert_eq!(told(&elsewhere, token.expose(), 1).await, "unknown");
    // Every character but the last two bits' worth, which mean nothing, is looked at.
    let text = token.expose();
    for at in PREFIX.len()..text.len() {
        for other in ["A", "B", "_"] {
            let mut changed = text.to_owned();
            changed.replace_range(at..=at, other);
            if changed != text {
                let told = told(&tokens, &changed, 1).await;
                assert!(["unknown", "no token"].contains(&told), "{at}: {told}");
            }
        }
    }
    // Another generation, or another session, without the key that makes the tag.
    for generation in [0_u64, 2, u64::MAX] {
        let mut bytes = URL_SAFE_NO_PAD.decode(&text[PREFIX.len()..]).unwrap();
        bytes[32..40].copy_from_slice(&generation.to_be_bytes());
        let forged = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(&bytes));
        assert_eq!(told(&tokens, &forged, 1).await, "unknown");
        bytes[16..32].copy_from_slice(&session(2).to_bytes());
        let forged = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(&bytes));
        assert_eq!(told(&tokens, &forged, 1).await, "unknown");
    }
    for token in [text, other.expose()] {
        assert_eq!(told(&tokens, token, 1).await, "rotated");
    }
}

#[test]
fn a_token_has_one_form() {
    let good = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode([7; TOKEN_BYTES]));
    assert!(PresentedRefresh::read(&good).is_some());
    for bad in [
        String::new(),
        PREFIX.to_owned(),
        good.replace("klrt_", "klrt-"),
        good.to_uppercase(),
        format!("{good}="),
        format!("{good}A"),
        format!(" {good}"),
        good[..good.len() - 1].to_owned(),
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode([7; TOKEN_BYTES - 1])),
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode([7; TOKEN_BYTES + 1])),
        format!("{PREFIX}{}", "A".repeat(100_000)),
    ] {
        assert!(PresentedRefresh::read(&bad).is_none(), "{bad:.20}");
    }
    const { assert!(SECRET_BYTES * 8 >= 190) };
}

#[tokio::test]
async fn a_token_that_is_not_used_expires_and_so_does_its_session() {
    let (_, tokens) = tokens();
    let first = tokens.start(organization(), session(1), end(), at(0)).await.unwrap();
    assert_eq!(told(&tokens, first.expose(), IDLE_MS).await, "expired");
    let second = use_at(&tokens, first.expose(), IDLE_MS - 1).await.ok().unwrap();
    // The idle time begins anew with each use, and never goes past the session's end.
    assert_eq!(told(&tokens, second.expose(), 2 * IDLE_MS - 1).await, "expired");
    let mut current = second;
    for ms in (1_500..10_000).step_by(500) {
        current = use_at(&tokens, current.expose(), ms).await.ok().unwrap();
    }
    assert_eq!(told(&tokens, current.expose(), 10_000).await, "expired");
    assert_eq!(told(&tokens, current.expose(), 9_999).await, "rotated");
}

#[tokio::test]
async fn a_session_that_ended_has_no_token() {
    let (_, tokens) = tokens();
    let first = tokens.start(organization(), session(1), end(), at(0)).await.unwrap();
    let second = use_at(&tokens, first.expose(), 1).await.ok().unwrap();
    tokens.end(session(1)).await.unwrap();
    tokens.end(session(1)).await.unwrap();
    for token in [first, second] {
        assert_eq!(told(&tokens, token.expose(), 2).await, "unknown");
    }
}

#[tokio::test]
async fn what_is_long_over_is_swept() {
    let (vault, tokens) = tokens();
    let begun = |ms: u64| SessionId::from_parts(ms, 7);
    let many = crate::ledger::vault::rows::ROW_NAMES_MAX as u64 + 5;
    for ms in 0..many {
        tokens.start(organization(), begun(ms), end(), at(0)).await.unwrap();
    }
    let account = projections::id::AccountId::from_parts(0, 1);
    for other in [RowName::password(account), RowName::totp(account)] {
        let secret = RowSecret::new(Zeroizing::new(vec![1]));
        vault.write_row(&other, None, secret, Urgency::Normal).await.unwrap();
    }
    let last = i64::try_from(many).unwrap() - 1;
    assert_eq!(tokens.sweep(at(0)).await, Ok(0));
    assert_eq!(tokens.sweep(at(last)).await, Ok(usize::try_from(last).unwrap()));
    let left = vault.row_names(None).await.unwrap();
    let last = RowName::refresh(begun(many - 1));
    assert_eq!(left, [RowName::password(account), last, RowName::totp(account)]);
    assert_eq!(tokens.sweep(at(i64::from(u32::MAX))).await, Ok(1));
}

/// Of many who use one token at once, one alone is given the next; to the others it
/// was a race, or (if they came after) reuse. Never do two get a token.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_at_once_one_alone_is_given_the_next() {
    let (_, tokens) = tokens();
    let tokens = Arc::new(tokens);
    for n in 0..50 {
        let token = tokens.start(organization(), session(n), end(), at(0)).await.unwrap();
        let users: Vec<_> = (0..8)
            .map(|_| {
                let (tokens, token) = (Arc::clone(&tokens), token.clone());
                tokio::spawn(async move { told(&tokens, token.expose(), 1).await })
            })
            .collect();
        let mut rotated = 0;
        for user in users {
            let told = user.await.unwrap();
            assert!(["rotated", "raced", "reused"].contains(&told), "{told}");
            rotated += usize::from(told == "rotated");
        }
        assert_eq!(rotated, 1);
    }
}

/// A vault in which somebody else writes the row just before it is written.
struct Racing {
    vault: Arc<MemoryVault>,
}

impl Vault for Racing {
    fn cached_subject_key(
        &self,
        subject: &projections::sealed::Subject,
    ) -> Option<crate::ledger::vault::SubjectKey> {
        self.vault.cached_subject_key(subject)
    }
    fn obtain_subject_key(
        &self,
        subject: &projections::sealed::Subject,
        urgency: Urgency,
    ) -> crate::ledger::vault::VaultFuture<crate::ledger::vault::SubjectKey> {
        self.vault.obtain_subject_key(subject, urgency)
    }
    fn existing_subject_key(
        &self,
        subject: &projections::sealed::Subject,
    ) -> crate::ledger::vault::VaultFuture<crate::ledger::vault::SubjectKeyState> {
        self.vault.existing_subject_key(subject)
    }
    fn existing_subject_keys(
        &self,
        subjects: &[projections::sealed::Subject],
    ) -> crate::ledger::vault::VaultFuture<Vec<crate::ledger::vault::SubjectKeyState>> {
        self.vault.existing_subject_keys(subjects)
    }
    fn erase_subject(
        &self,
        subject: &projections::sealed::Subject,
    ) -> crate::ledger::vault::VaultFuture<bool> {
        self.vault.erase_subject(subject)
    }
    fn obtain_named_key(
        &self,
        name: &'static str,
    ) -> crate::ledger::vault::VaultFuture<Zeroizing<[u8; 32]>> {
        self.vault.obtain_named_key(name)
    }
    fn read_row(
        &self,
        name: &RowName,
    ) -> crate::ledger::vault::VaultFuture<Option<crate::ledger::vault::rows::SecretRow>> {
        self.vault.read_row(name)
    }
    fn write_row(
        &self,
        name: &RowName,
        expected: Option<RowVersion>,
        secret: Option<RowSecret>,
        urgency: Urgency,
    ) -> crate::ledger::vault::VaultFuture<RowWritten> {
        let (vault, name) = (Arc::clone(&self.vault), name.clone());
        Box::pin(async move {
            let row = vault.read_row(&name).await?.unwrap();
            let same = Some(row.secret);
            vault.write_row(&name, Some(row.version), same, urgency).await?;
            vault.write_row(&name, expected, secret, urgency).await
        })
    }
    fn row_names(
        &self,
        after: Option<&RowName>,
    ) -> crate::ledger::vault::VaultFuture<Vec<RowName>> {
        self.vault.row_names(after)
    }
}

/// What lost a race is no reuse, and the session goes on.
#[tokio::test]
async fn what_was_current_when_it_was_read_is_a_race() {
    let (vault, tokens) = tokens();
    let token = tokens.start(organization(), session(1), end(), at(0)).await.unwrap();
    let racing = RefreshTokens::new(Arc::new(Racing { vault }), IDLE_MS);
    assert_eq!(told(&racing, token.expose(), 1).await, "raced");
    assert_eq!(told(&tokens, token.expose(), 1).await, "rotated");
}

#[tokio::test]
async fn a_damaged_row_is_a_fault_and_a_full_disk_says_so() {
    let (vault, tokens) = tokens();
    let token = tokens.start(organization(), session(1), end(), at(0)).await.unwrap();
    let presented = PresentedRefresh::read(token.expose()).unwrap();
    vault.set_full(Some(Urgency::Normal));
    let full = tokens.rotate(&presented, end(), at(1)).await.err();
    assert_eq!(full, Some(RefreshError::Vault(VaultError::Full)));
    vault.set_full(None);
    assert_eq!(told(&tokens, token.expose(), 1).await, "rotated");
    let name = RowName::refresh(session(1));
    let row = vault.read_row(&name).await.unwrap().unwrap();
    let mut bytes = Zeroizing::new(row.secret.expose().to_vec());
    bytes[0] = 2;
    let secret = RowSecret::new(bytes);
    vault.write_row(&name, Some(row.version), secret, Urgency::Normal).await.unwrap();
    let damaged = tokens.rotate(&presented, end(), at(1)).await.err();
    assert_eq!(damaged, Some(RefreshError::Vault(VaultError::Damaged(name.to_string()))));
}
