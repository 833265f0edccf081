package adjudication

// anesthesiaMinutes is how many minutes billed as MJ make one payable unit
// (CMS Claims Processing Manual, chapter 12, section 50).
const anesthesiaMinutes = 15
