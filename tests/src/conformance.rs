//! What a script has told of the real thing and of the model is the same, and something was seen.

/// The real thing told what the model told, line by line; `what` it is.
#[track_caller]
pub fn same(what: &str, real: &[String], model: &[String]) {
    let at = real.iter().zip(model).take_while(|(real, model)| real == model).count();
    let both = real[..at].join("\n");
    assert_eq!(real.get(at), model.get(at), "{what} (left) is not as the model (right), after\n{both}");
}

/// A line has this in it: the script came that far.
#[track_caller]
pub fn told(told: &[String], what: &str) {
    assert!(told.iter().any(|line| line.contains(what)), "nothing was seen of: {what}\n{}", told.join("\n"));
}
