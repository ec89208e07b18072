//! The catalog is changed where it is owned, whichever door is asked.

use crate::support::{JOURNEY, cluster, publish, stop};
use sojourn_proto::v1;
use tonic::Code;
use tonic_types::StatusExt;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journey_published_through_another_door_is_live_in_every_shard() {
    let members = cluster(2).await;
    let published = publish(&members[1], JOURNEY).await;
    assert!(published.live, "{published:?}");
    assert_eq!((published.version, published.unchanged), (1, false));
    // again, at the owner: the same version
    let again = publish(&members[0], JOURNEY).await;
    assert_eq!((again.version, again.unchanged), (1, true));
    let mut door = members[1].journeys();
    let off = v1::DeactivateRequest {
        journey: "line".into(),
        mode: v1::JourneyState::Held as i32,
        actor: "ann".into(),
        ..Default::default()
    };
    let info = door.deactivate(off).await.unwrap().into_inner().journey;
    assert_eq!(info.unwrap().state, v1::JourneyState::Held as i32);
    let on = v1::ActivateRequest {
        journey: "line".into(),
        actor: "ann".into(),
        ..Default::default()
    };
    let info = door.activate(on).await.unwrap().into_inner().journey;
    assert_eq!(info.unwrap().state, v1::JourneyState::Active as i32);
    let endpoint = v1::Endpoint {
        name: "crm".into(),
        url: "http://localhost:1/".into(),
        ..Default::default()
    };
    let put = v1::PutEndpointRequest {
        endpoint: Some(endpoint.clone()),
        actor: "ann".into(),
        ..Default::default()
    };
    let put = door.put_endpoint(put).await.unwrap().into_inner();
    assert_eq!(put.endpoint, Some(endpoint));
    let mut first = members[0].journeys();
    let listed = first.list_endpoints(v1::ListEndpointsRequest::default());
    assert_eq!(listed.await.unwrap().into_inner().endpoints.len(), 1);
    let delete = v1::DeleteEndpointRequest {
        name: "crm".into(),
        actor: "ann".into(),
        ..Default::default()
    };
    door.delete_endpoint(delete.clone()).await.unwrap();
    // the owner's refusal, word for word
    let here = members[0]
        .journeys()
        .delete_endpoint(delete.clone())
        .await
        .unwrap_err();
    let there = door.delete_endpoint(delete).await.unwrap_err();
    assert_eq!(there.code(), Code::FailedPrecondition);
    assert_eq!(here.message(), there.message());
    // a bad text is refused with the places in it
    let bad = v1::PublishRequest {
        text: "journey: [".into(),
        ..Default::default()
    };
    let status = door.publish(bad).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let details = status.get_error_details();
    assert!(!details.bad_request().unwrap().field_violations.is_empty());
    // handed over once is not handed on
    let mut request = tonic::Request::new(v1::PublishRequest {
        text: JOURNEY.into(),
        ..Default::default()
    });
    request
        .metadata_mut()
        .insert("sojourn-forwarded", "1".parse().unwrap());
    let status = door.publish(request).await.unwrap_err();
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!(info.reason, "not_owner");
    assert_eq!(info.metadata["owner"], members[0].node.id.to_string());
    stop(members).await;
}
