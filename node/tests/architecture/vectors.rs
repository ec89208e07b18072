//! What places a customer can never change: the vectors of `proto/vectors` come from another implementation.

use serde::Deserialize;
use sojourn_journey::identifier::customer_hash;
use sojourn_journey::signal::Identifier;

#[derive(Deserialize)]
struct File {
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    workspace: String,
    name: String,
    given: String,
    value: String,
    bytes: String,
    hash: String,
}

#[test]
fn the_hash_of_a_customer_is_that_of_the_vectors() {
    let file: File =
        serde_json::from_str(&crate::read("proto/vectors/customer-hash.json")).expect("the file");
    assert_eq!(file.vectors.len(), 3, "three vectors");
    for vector in file.vectors {
        let key = Identifier::new(&vector.name, &vector.given).expect("an identifier");
        assert_eq!(key.value, vector.value, "the written form of {key}");
        let hash = customer_hash(&vector.workspace, &key);
        assert_eq!(format!("{hash:016x}"), vector.hash, "the hash of {key}");
        // the same from the bytes themselves: the lengths and their order are part of the format
        let bytes = hex::decode(&vector.bytes).expect("hex");
        assert_eq!(
            xxhash_rust::xxh3::xxh3_64(&bytes),
            hash,
            "the bytes of {key}"
        );
    }
}
