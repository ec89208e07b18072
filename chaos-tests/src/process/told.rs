//! What a server says of itself in the lines that it prints when it listens. Knows no process.

use std::net::SocketAddr;

/// The addresses in the line that a server prints when it listens.
pub(super) fn addresses(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let rest = line.strip_prefix("sojourn serves gRPC on ")?;
    let (grpc, http) = rest.split_once(" and HTTP on ")?;
    Some((grpc.parse().ok()?, http.trim().parse().ok()?))
}

/// The node and its peer address in the line that a server prints after it.
pub(super) fn identity(line: &str) -> Option<(u64, SocketAddr)> {
    let rest = line.strip_prefix("node ")?;
    let (node, rest) = rest.split_once(" of cluster ")?;
    let (_, peer) = rest.split_once(", for other nodes on ")?;
    Some((node.parse().ok()?, peer.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::{addresses, identity};

    #[test]
    fn the_lines_that_name_doors_and_node_are_read() {
        let line = "sojourn serves gRPC on 127.0.0.1:41 and HTTP on 127.0.0.1:42";
        let ports = addresses(line).map(|(g, h)| (g.port(), h.port()));
        assert_eq!(ports, Some((41, 42)));
        assert_eq!(addresses("error: no"), None);
        let line = "node 3 of cluster 0af, for other nodes on 127.0.0.1:43";
        let read = identity(line).map(|(node, peer)| (node, peer.port()));
        assert_eq!(read, Some((3, 43)));
        assert_eq!(identity("node 3 cannot be reached"), None);
    }
}
