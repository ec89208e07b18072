//! Prints the JSON Schema of a journey: `cargo run -p sojourn-journey --example schema`.

#![allow(clippy::print_stdout)] // printing is what it is for

fn main() {
    print!("{}", sojourn_journey::schema::text());
}
