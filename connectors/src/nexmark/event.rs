//! The event of a number. In: a shape, a seed, the event's number. Out: a person, an auction or a bid, the same whoever asks.
//!
//! Numbers come in rounds of (by default) 50: one person, three auctions, 46 bids. Ids count up; a bid goes to a recent auction by a recent
//! person, one in two of them to a hot auction, three in four by a hot person, where "hot" is the first of the last hundred. Prices are
//! 100 · 10^x with x even between 0 and 6. An event is self-contained: nothing is remembered from one to the next.

use super::random::Random;

/// Ids of people and auctions begin here, categories at 10.
const FIRST_ID: u64 = 1_000;
const FIRST_CATEGORY: u64 = 10;
const CATEGORIES: u64 = 5;
/// One id among so many is hot.
const HOT_EVERY: u64 = 100;
/// Of so many auctions, bids to an auction and bids by a person one is not for a hot one.
const HOT_SELLERS: u64 = 4;
const HOT_AUCTIONS: u64 = 2;
const HOT_BIDDERS: u64 = 4;
const HOT_CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];
const CHANNELS: u64 = 10_000;
/// Auctions that are open at a time, people that take part, and ids that are spoken of before they exist.
const OPEN_AUCTIONS: u64 = 100;
const ACTIVE_PEOPLE: u64 = 1_000;
const LEAD: u64 = 10;
/// Bytes of an event on average; `extra` fills up what its columns leave.
const PERSON_BYTES: usize = 200;
const AUCTION_BYTES: usize = 500;
const BID_BYTES: usize = 100;

const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];
const CITIES: [&str; 10] = ["Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland", "Bend", "Redmond", "Seattle", "Kent", "Cheyenne"];
const FIRST_NAMES: [&str; 11] = ["Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"];
const LAST_NAMES: [&str; 9] = ["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"];

/// What the stream is like.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    pub seed: u64,
    /// How many people, auctions and bids a round has.
    pub people: u64,
    pub auctions: u64,
    pub bids: u64,
    /// Events per second of event time.
    pub rate: f64,
    /// The time of the first event, in ms.
    pub start_ms: i64,
}

impl Default for Shape {
    /// 1 : 3 : 46 and 10,000 events a second, as the benchmark's configuration; from 2015-07-15 on.
    fn default() -> Shape {
        Shape { seed: 0, people: 1, auctions: 3, bids: 46, rate: 10_000.0, start_ms: 1_436_918_400_000 }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Person {
    pub id: i64,
    pub name: String,
    pub email_address: String,
    pub credit_card: String,
    pub city: &'static str,
    pub state: &'static str,
    pub extra: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Auction {
    pub id: i64,
    pub item_name: String,
    pub description: String,
    pub initial_bid: i64,
    pub reserve: i64,
    pub expires_ms: i64,
    pub seller: i64,
    pub category: i64,
    pub extra: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Bid {
    pub auction: i64,
    pub bidder: i64,
    pub price: i64,
    pub channel: String,
    pub url: String,
    pub extra: String,
}

/// In the order of `event_type`: 0, 1, 2.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Person(Person),
    Auction(Auction),
    Bid(Bid),
}

/// Makes events.
#[derive(Debug, Clone)]
pub struct Generator {
    shape: Shape,
}

impl Generator {
    /// The shape has at least one event a round and a rate above 0.
    pub fn new(shape: Shape) -> Generator {
        assert!(shape.people + shape.auctions + shape.bids > 0 && shape.rate > 0.0);
        Generator { shape }
    }

    /// `event_type` of this event, without making it.
    pub fn kind(&self, number: u64) -> u8 {
        let place = number % self.round();
        u8::from(place >= self.shape.people) + u8::from(place >= self.shape.people + self.shape.auctions)
    }

    pub fn time_ms(&self, number: u64) -> i64 {
        self.shape.start_ms + (number as f64 * 1_000.0 / self.shape.rate) as i64
    }

    pub fn event(&self, number: u64) -> Event {
        let mut random = Random::of(self.shape.seed, number);
        match self.kind(number) {
            0 => Event::Person(self.person(number, &mut random)),
            1 => Event::Auction(self.auction(number, &mut random)),
            _ => Event::Bid(self.bid(number, &mut random)),
        }
    }

    fn round(&self) -> u64 {
        self.shape.people + self.shape.auctions + self.shape.bids
    }

    /// How many people, and how many auctions, there are once this event has happened.
    fn people(&self, number: u64) -> u64 {
        number / self.round() * self.shape.people + (number % self.round() + 1).min(self.shape.people)
    }

    fn auctions(&self, number: u64) -> u64 {
        let of_round = (number % self.round() + 1).saturating_sub(self.shape.people).min(self.shape.auctions);
        number / self.round() * self.shape.auctions + of_round
    }

    /// Someone who takes part now, or will be there soon.
    fn any_person(&self, number: u64, random: &mut Random) -> u64 {
        let people = self.people(number);
        let active = people.min(ACTIVE_PEOPLE);
        people - active + random.below(active + LEAD)
    }

    /// An auction that is open now, or will be there soon.
    fn any_auction(&self, number: u64, random: &mut Random) -> u64 {
        let last = self.auctions(number).saturating_sub(1);
        let first = last.saturating_sub(OPEN_AUCTIONS);
        first + random.below(last - first + 1 + LEAD)
    }

    fn person(&self, number: u64, random: &mut Random) -> Person {
        let name = format!("{} {}", random.one_of(&FIRST_NAMES), random.one_of(&LAST_NAMES));
        let mut email_address = String::new();
        random.words(7, '_', &mut email_address);
        email_address.push('@');
        random.words(5, '_', &mut email_address);
        email_address.push_str(".com");
        let card: Vec<String> = (0..4).map(|_| format!("{:04}", random.below(10_000))).collect();
        let (credit_card, city, state) = (card.join(" "), random.one_of(&CITIES), random.one_of(&STATES));
        let size = 8 + name.len() + email_address.len() + credit_card.len() + city.len() + state.len();
        let extra = extra(random, size, PERSON_BYTES);
        Person { id: (FIRST_ID + self.people(number) - 1) as i64, name, email_address, credit_card, city, state, extra }
    }

    fn auction(&self, number: u64, random: &mut Random) -> Auction {
        let seller = match random.below(HOT_SELLERS) {
            0 => self.any_person(number, random),
            _ => self.people(number).saturating_sub(1) / HOT_EVERY * HOT_EVERY,
        };
        let category = FIRST_CATEGORY + random.below(CATEGORIES);
        let initial_bid = price(random);
        // About as long as it takes until so many other auctions are open.
        let ahead = number + OPEN_AUCTIONS * self.round() / self.shape.auctions.max(1);
        let (now, horizon) = (self.time_ms(number), self.time_ms(ahead) - self.time_ms(number));
        let expires_ms = now + 1 + random.below((2 * horizon).max(1) as u64) as i64;
        let (mut item_name, mut description) = (String::new(), String::new());
        random.words(20, ' ', &mut item_name);
        random.words(100, ' ', &mut description);
        let (item_name, description) = (item_name.trim().to_string(), description.trim().to_string());
        let reserve = initial_bid + price(random);
        let extra = extra(random, 48 + item_name.len() + description.len(), AUCTION_BYTES);
        Auction {
            id: (FIRST_ID + self.auctions(number) - 1) as i64,
            item_name,
            description,
            initial_bid,
            reserve,
            expires_ms,
            seller: (FIRST_ID + seller) as i64,
            category: category as i64,
            extra,
        }
    }

    fn bid(&self, number: u64, random: &mut Random) -> Bid {
        let auction = match random.below(HOT_AUCTIONS) {
            0 => self.any_auction(number, random),
            _ => self.auctions(number).saturating_sub(1) / HOT_EVERY * HOT_EVERY,
        };
        let bidder = match random.below(HOT_BIDDERS) {
            0 => self.any_person(number, random),
            // The second of the hundred, so that hot bidders are no hot sellers.
            _ => self.people(number).saturating_sub(1) / HOT_EVERY * HOT_EVERY + 1,
        };
        let price = price(random);
        let (channel, url) = match random.below(2) {
            0 => {
                let channel = random.below(CHANNELS);
                (format!("channel-{channel}"), self.url(channel))
            }
            _ => {
                let hot = random.below(HOT_CHANNELS.len() as u64);
                (HOT_CHANNELS[hot as usize].to_string(), self.url(CHANNELS + hot))
            }
        };
        let extra = extra(random, 32, BID_BYTES);
        Bid { auction: (FIRST_ID + auction) as i64, bidder: (FIRST_ID + bidder) as i64, price, channel, url, extra }
    }

    /// A channel has one address; nine in ten of those that are not hot say their number in it.
    fn url(&self, channel: u64) -> String {
        let mut random = Random::of(!self.shape.seed, channel);
        let mut url = String::from("https://www.nexmark.com");
        for _ in 0..3 {
            url.push('/');
            random.words(5, '_', &mut url);
        }
        url.push_str("/item.htm?query=1");
        if channel < CHANNELS && random.below(10) > 0 {
            url.push_str(&format!("&channel_id={}", (channel as u32).reverse_bits() >> 1));
        }
        url
    }
}

fn price(random: &mut Random) -> i64 {
    (10f64.powf(random.fraction() * 6.0) * 100.0).round() as i64
}

/// What fills an event of `size` bytes up to `wanted`, a fifth more or less.
fn extra(random: &mut Random, size: usize, wanted: usize) -> String {
    let Some(left) = wanted.checked_sub(size) else { return String::new() };
    let spread = (left as f64 * 0.2).round() as usize;
    let count = left - spread + if spread == 0 { 0 } else { random.below(2 * spread as u64) as usize };
    let mut extra = String::with_capacity(count);
    random.letters(count, &mut extra);
    extra
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_has_one_person_three_auctions_and_46_bids() {
        let generator = Generator::new(Shape::default());
        let mut counts = [0; 3];
        for number in 0..5_000 {
            let kind = generator.kind(number);
            let made = match generator.event(number) {
                Event::Person(_) => 0,
                Event::Auction(_) => 1,
                Event::Bid(_) => 2,
            };
            assert_eq!(made, kind);
            counts[kind as usize] += 1;
        }
        assert_eq!(counts, [100, 300, 4_600]);
    }

    #[test]
    fn ids_count_up_and_what_is_referred_to_is_near() {
        let generator = Generator::new(Shape { seed: 7, ..Shape::default() });
        let (mut people, mut auctions, mut hot) = (1_000, 1_000, 0);
        for number in 0..100_000 {
            match generator.event(number) {
                Event::Person(person) => {
                    assert_eq!(person.id, people);
                    people += 1;
                }
                Event::Auction(auction) => {
                    assert_eq!(auction.id, auctions);
                    assert!(auction.seller >= people - 1_000 && auction.seller < people + 10, "{auction:?}");
                    assert!(auction.reserve > auction.initial_bid && (10..15).contains(&auction.category));
                    assert!(auction.expires_ms > generator.time_ms(number));
                    auctions += 1;
                }
                Event::Bid(bid) => {
                    assert!(bid.auction < auctions + 10 && bid.auction >= auctions - 102, "{bid:?} at {auctions}");
                    assert!(bid.bidder < people + 10 && (100..=100_000_000).contains(&bid.price));
                    hot += u32::from(bid.auction % 100 == 0);
                }
            }
        }
        // Half of the bids, and a hundredth of the others.
        assert!((45_000..47_500).contains(&hot), "{hot} of 92,000");
    }

    #[test]
    fn an_event_follows_from_seed_and_number() {
        let shape = Shape { seed: 3, ..Shape::default() };
        let (one, other) = (Generator::new(shape.clone()), Generator::new(shape));
        let backwards: Vec<Event> = (0..200).rev().map(|number| other.event(number)).collect();
        assert!((0..200).map(|number| one.event(number)).eq(backwards.into_iter().rev()));
        assert_ne!(Generator::new(Shape { seed: 4, ..Shape::default() }).event(10), one.event(10));
    }

    #[test]
    fn times_follow_the_rate() {
        let generator = Generator::new(Shape { rate: 4.0, start_ms: 1_000, ..Shape::default() });
        assert_eq!((0..5).map(|number| generator.time_ms(number)).collect::<Vec<_>>(), [1_000, 1_250, 1_500, 1_750, 2_000]);
    }
}
