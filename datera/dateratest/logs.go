package dateratest

// uploadPath is where clients send logs for the vendor. They are counted and thrown away.
const uploadPath = "/logs_upload"

func uploadLogs(*call) (any, error) { return entity{"path": uploadPath}, nil }
