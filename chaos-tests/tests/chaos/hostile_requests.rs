//! Requests that mean harm beside signals: references, page tokens, commands.

use crate::hostile_cases::identifier;
use crate::hostile_signals::{begun, violation};
use crate::support::{customer, healthy, send, signal};
use anyhow::{Context, Result, ensure};
use sojourn_chaos_tests::invariants::latest;
use sojourn_client::Read;
use sojourn_client::wire as v1;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn references_tokens_and_commands_are_checked_like_signals() -> Result<()> {
    let (mut server, client, channel) = begun().await?;
    let mut executions = v1::executions_client::ExecutionsClient::new(channel);
    for n in 0..5 {
        send(
            &client,
            signal("h.start", &customer(&format!("c{n}")), "start"),
        )
        .await?;
        send(
            &client,
            signal("h.nothing", &customer("good"), &format!("n{n}")),
        )
        .await?;
    }
    let list = v1::ListExecutionsRequest {
        page_size: 2,
        ..v1::ListExecutionsRequest::default()
    };
    let token = executions
        .list(list.clone())
        .await?
        .into_inner()
        .next_page_token;
    ensure!(!token.is_empty(), "there is a next page");
    for (name, request) in [
        (
            "a token of other filters",
            v1::ListExecutionsRequest {
                journey: "door".into(),
                page_token: token.clone(),
                ..list.clone()
            },
        ),
        (
            "a token that is none",
            v1::ListExecutionsRequest {
                page_token: "\u{1f600}".into(),
                ..list.clone()
            },
        ),
        (
            "a token with a changed letter",
            v1::ListExecutionsRequest {
                page_token: format!("B{}", &token[1..]),
                ..list.clone()
            },
        ),
    ] {
        let status = executions.list(request).await.err().context(name)?;
        violation(&status, "page_token").context(name)?;
    }
    let page = |who: &str, token: &str| v1::TimelineRequest {
        execution: Some(v1::ExecutionRef {
            customer: Some(identifier("id", who)),
            journey: "door".into(),
            ..v1::ExecutionRef::default()
        }),
        page_size: 2,
        page_token: token.into(),
        options: None,
    };
    let own = executions
        .timeline(page("good", ""))
        .await?
        .into_inner()
        .next_page_token;
    ensure!(!own.is_empty() && own != token);
    let next = executions.timeline(page("good", &own)).await?.into_inner();
    ensure!(next.entries.len() == 2, "its own token works: {next:?}");
    for (name, request) in [
        ("the token of another's timeline", page("c1", &own)),
        ("the token of a list", page("good", &token)),
        ("no token", page("good", "1.x")),
    ] {
        let status = executions.timeline(request).await.err().context(name)?;
        violation(&status, "page_token").context(name)?;
    }
    let too_many = v1::ListExecutionsRequest {
        page_size: 1_001,
        ..list
    };
    violation(
        &executions.list(too_many).await.err().context("1,001")?,
        "page_size",
    )?;
    for id in [
        "",
        "x",
        "0123-4567-1",
        &"f".repeat(100_000),
        "../../etc/passwd",
    ] {
        let request = v1::GetExecutionRequest {
            execution: Some(v1::ExecutionRef {
                id: id.into(),
                ..v1::ExecutionRef::default()
            }),
            options: None,
        };
        let status = executions
            .get(request)
            .await
            .err()
            .context("an id that is none")?;
        violation(&status, "execution")?;
    }
    // ids of others' shape, but of nobody
    let nobody = sojourn_client::ExecutionRef::Id(format!("{:016x}-{:016x}-1", 1, 2));
    let error = client
        .get(&nobody, Read::default())
        .await
        .err()
        .context("nobody")?;
    ensure!(error.is_not_found(), "{error:?}");
    let command = v1::CommandRequest {
        execution: page("good", "").execution,
        id: "c".into(),
        actor: "ann".into(),
        reason: "because".into(),
        expected_visit: None,
    };
    for (field, request) in [
        (
            "id",
            v1::CommandRequest {
                id: String::new(),
                ..command.clone()
            },
        ),
        (
            "actor",
            v1::CommandRequest {
                actor: "a".repeat(5_000),
                ..command.clone()
            },
        ),
        (
            "reason",
            v1::CommandRequest {
                reason: String::new(),
                ..command.clone()
            },
        ),
        (
            "execution",
            v1::CommandRequest {
                execution: None,
                ..command.clone()
            },
        ),
    ] {
        let status = executions.hold(request).await.err().context(field)?;
        violation(&status, field)?;
    }
    let nowhere = v1::OverrideRequest {
        command: Some(command),
        to: String::new(),
        run_actions: false,
    };
    violation(
        &executions
            .r#override(nowhere)
            .await
            .err()
            .context("nowhere")?,
        "to",
    )?;
    let stands = client
        .get(&latest(&customer("good"), "door"), Read::default())
        .await?;
    ensure!(
        stands
            .execution
            .is_some_and(|e| e.stage == "one" && e.visit == 1)
    );
    healthy(&mut server).await
}
