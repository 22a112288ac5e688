CREATE SOURCE rides (
  ride_id BIGINT NOT NULL, city VARCHAR, driver BIGINT, fare DOUBLE, at TIMESTAMP(3),
  WATERMARK FOR at
) WITH (connector = 'file', path = '${data}/rides.jsonl') FORMAT PLAIN ENCODE JSON;
