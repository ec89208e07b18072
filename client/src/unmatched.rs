//! Signals that moved nothing: what arrives and matches nothing.

use crate::client::Client;
use crate::error::Error;
use sojourn_proto::v1::{self, signals_client::SignalsClient};

/// Which signals that moved nothing; what is absent is not asked.
#[derive(Clone, Debug, Default)]
pub struct UnmatchedFilter {
    /// In an execution of this journey.
    pub journey: Option<String>,
    /// In an execution that was in this stage.
    pub stage: Option<String>,
    /// Of this type.
    pub kind: Option<String>,
    /// So many in a page, at most 1,000.
    pub page_size: Option<u32>,
}

impl Client {
    /// One page of the signals of the last 30 days that found an active execution and moved nothing in it, shard after
    /// shard, newest first; `token` is the `next_page_token` of the page before, empty for the first. A page may have
    /// fewer than asked for and not be the last: the last has no token. The first page also shows some of the newest
    /// signals that concerned nobody (`no_match`), which are counted and not recorded.
    ///
    /// # Errors
    /// As every call; [`crate::Code::InvalidArgument`] for a token of other filters.
    ///
    /// ```no_run
    /// # async fn example(client: sojourn_client::Client) -> Result<(), sojourn_client::Error> {
    /// let filter = sojourn_client::UnmatchedFilter {
    ///     journey: Some("loan".to_owned()),
    ///     ..Default::default()
    /// };
    /// for signal in client.unmatched_page(&filter, "").await?.signals {
    ///     println!("{} while in {}", signal.r#type, signal.stage);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn unmatched_page(
        &self,
        filter: &UnmatchedFilter,
        token: &str,
    ) -> Result<v1::ListUnmatchedResponse, Error> {
        let request = v1::ListUnmatchedRequest {
            workspace: self.workspace.to_string(),
            journey: filter.journey.clone().unwrap_or_default(),
            stage: filter.stage.clone().unwrap_or_default(),
            r#type: filter.kind.clone().unwrap_or_default(),
            page_size: filter.page_size.unwrap_or_default(),
            page_token: token.to_owned(),
        };
        self.call(request, async |channel, request| {
            SignalsClient::new(channel).list_unmatched(request).await
        })
        .await
    }
}
