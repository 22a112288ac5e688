-- The auction site of the Nexmark benchmark as one stream of events, and the three views its queries read. One stream, because the order of people,
-- auctions and bids is part of the benchmark. event_type: 0 a person, 1 an auction, 2 a bid.
SET clock = 'event';

CREATE TABLE datagen (
    event_type INT,
    person_id BIGINT,
    person_name VARCHAR,
    person_emailAddress VARCHAR,
    person_creditCard VARCHAR,
    person_city VARCHAR,
    person_state VARCHAR,
    person_extra VARCHAR,
    auction_id BIGINT,
    auction_itemName VARCHAR,
    auction_description VARCHAR,
    auction_initialBid BIGINT,
    auction_reserve BIGINT,
    auction_expires TIMESTAMP(3),
    auction_seller BIGINT,
    auction_category BIGINT,
    auction_extra VARCHAR,
    bid_auction BIGINT,
    bid_bidder BIGINT,
    bid_price BIGINT,
    bid_channel VARCHAR,
    bid_url VARCHAR,
    bid_extra VARCHAR,
    dateTime TIMESTAMP(3),
    -- Flink drops what comes behind the watermark, and so may forget; LATENESS says the same here.
    WATERMARK FOR dateTime AS dateTime - INTERVAL '4' SECOND LATENESS INTERVAL '4' SECOND
) WITH (
    'connector' = 'nexmark',
    'first-event.rate' = '${rate:-10000}',
    'next-event.rate' = '${rate:-10000}',
    'events.num' = '${events:-100000}',
    'person.proportion' = '1',
    'auction.proportion' = '3',
    'bid.proportion' = '46'
);

CREATE VIEW person AS
SELECT person_id AS id, person_name AS name, person_emailAddress AS emailAddress, person_creditCard AS creditCard, person_city AS city,
    person_state AS state, dateTime, person_extra AS extra
FROM datagen WHERE event_type = 0;

CREATE VIEW auction AS
SELECT auction_id AS id, auction_itemName AS itemName, auction_description AS description, auction_initialBid AS initialBid,
    auction_reserve AS reserve, dateTime, auction_expires AS expires, auction_seller AS seller, auction_category AS category,
    auction_extra AS extra
FROM datagen WHERE event_type = 1;

CREATE VIEW bid AS
SELECT bid_auction AS auction, bid_bidder AS bidder, bid_price AS price, bid_channel AS channel, bid_url AS url, dateTime, bid_extra AS extra
FROM datagen WHERE event_type = 2;
