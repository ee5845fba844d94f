from flask import Flask, jsonify, request

app = Flask(__name__)
app.json.sort_keys = False


@app.route("/predict", methods=["POST"])
def predict():
    data = request.get_json(silent=True) or {}
    text = data.get("input", "no input") if isinstance(data, dict) else "no input"
    return jsonify({"prediction": f"Processed: {text}", "model": "test-model"})


@app.route("/health", methods=["GET"])
def health():
    return jsonify({"status": "healthy"})


if __name__ == "__main__":
    app.run(host="0.0.0.0", port=8080)
