//! The id that brokers gave a topic. In: a consumer, a name. Out: the id.
//!
//! librdkafka tells it through DescribeTopics, for which rdkafka has no function: the only unsafe code of this crate. Without it a topic that was
//! deleted and created again cannot be told from the old one, and records are left out in silence.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char};
use std::time::Duration;

use rdkafka::bindings::{self as native, rd_kafka_admin_op_t, rd_kafka_resp_err_t};
use rdkafka::consumer::Consumer as _;

use super::client::Consumer;

/// What librdkafka made and must be given back to it.
struct Owned<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Owned<T> {
    fn new(made: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> Result<Owned<T>, String> {
        if made.is_null() { Err("the Kafka client is out of memory".into()) } else { Ok(Owned(made, destroy)) }
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer is not null, came from the function that belongs to `destroy`, and is given back once.
        unsafe { (self.1)(self.0) }
    }
}

/// None where brokers have no ids. Waits at most about so long. Errors: why there is no answer.
pub fn topic_id(consumer: &Consumer, topic: &str, wait: Duration) -> Result<Option<String>, String> {
    let name = CString::new(topic).map_err(|_| "its name holds a zero".to_string())?;
    let client = consumer.client().native_ptr();
    let millis = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: `client` lives as long as `consumer` is borrowed, and its functions may be called from any thread. What is made is checked for null
    // and given back by its guard after its last use, in reverse order; `name` and `names` live to the end. An answer belongs to its event and is
    // copied before that is given back; a queue may be given back with a request still under way.
    unsafe {
        let queue = Owned::new(native::rd_kafka_queue_new(client), native::rd_kafka_queue_destroy)?;
        let options = native::rd_kafka_AdminOptions_new(client, rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        let options = Owned::new(options, native::rd_kafka_AdminOptions_destroy)?;
        let mut words: [c_char; 256] = [0; 256];
        native::rd_kafka_AdminOptions_set_request_timeout(options.0, millis, words.as_mut_ptr(), words.len());
        let mut names = [name.as_ptr()];
        let topics = native::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        let topics = Owned::new(topics, native::rd_kafka_TopicCollection_destroy)?;
        native::rd_kafka_DescribeTopics(client, topics.0, options.0, queue.0);
        let event = native::rd_kafka_queue_poll(queue.0, millis);
        let event = Owned::new(event, native::rd_kafka_event_destroy).map_err(|_| "no broker has answered in time".to_string())?;
        match native::rd_kafka_event_error(event.0) {
            rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => {}
            rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE | rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_UNSUPPORTED_VERSION => {
                return Ok(None);
            }
            _ => return Err(text(native::rd_kafka_event_error_string(event.0))),
        }
        let result = native::rd_kafka_event_DescribeTopics_result(event.0);
        if result.is_null() {
            return Err("the broker has answered something else".into());
        }
        let mut count = 0;
        let found = native::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if found.is_null() || count != 1 {
            return Err(format!("the broker has described {count} topics"));
        }
        let error = native::rd_kafka_TopicDescription_error(*found);
        if !error.is_null() && native::rd_kafka_error_code(error) != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(text(native::rd_kafka_error_string(error)));
        }
        let id = native::rd_kafka_TopicDescription_topic_id(*found);
        let none = id.is_null() || (native::rd_kafka_Uuid_most_significant_bits(id) == 0 && native::rd_kafka_Uuid_least_significant_bits(id) == 0);
        Ok(if none { None } else { Some(text(native::rd_kafka_Uuid_base64str(id))) })
    }
}

/// A copy of what librdkafka says.
///
/// # Safety
/// `words` is null or points to a text that ends in a zero.
unsafe fn text(words: *const c_char) -> String {
    if words.is_null() {
        return String::new();
    }
    // SAFETY: see above; the text is copied at once.
    unsafe { CStr::from_ptr(words) }.to_string_lossy().into_owned()
}
