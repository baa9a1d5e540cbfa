"""A program in the style of "Neural Networks from Scratch": the Model of its last chapters, or a loop by hand."""
# ruff: noqa: NPY002

import gallery
import nnfs
import numpy as np

NETWORKS = ("Model", "loop")


def train_model(X, y, X_test, y_test, epochs, accelerate):
    """The last chapters' way."""
    model = nnfs.Model()
    model.add(nnfs.Layer_Dense(64, 64, weight_regularizer_l2=5e-4, bias_regularizer_l2=5e-4))
    model.add(nnfs.Activation_ReLU())
    model.add(nnfs.Layer_Dropout(0.1))
    model.add(nnfs.Layer_Dense(64, 10))
    model.add(nnfs.Activation_Softmax())
    model.set(
        loss=nnfs.Loss_CategoricalCrossentropy(),
        optimizer=nnfs.Optimizer_Adam(learning_rate=0.01, decay=1e-3),
        accuracy=nnfs.Accuracy_Categorical(),
    )
    model.finalize()
    if accelerate:
        import fastbp

        fastbp.accelerate(model)
    losses = []
    for epoch in range(epochs):
        model.train(X, y, epochs=1, batch_size=128, print_every=100)
        losses.append(float(model.loss.calculate_accumulated()))
        print(f"epoch {epoch}: loss {losses[-1]:.6f}")
    model.evaluate(X_test, y_test, batch_size=128)
    return losses


def train_loop(X, y, X_test, y_test, epochs, accelerate):
    """The earlier chapters' way: the whole data in each step, every line written out."""
    if accelerate:
        import fastbp

        fastbp.accelerate(nnfs)
    dense1 = nnfs.Layer_Dense(64, 64)
    activation1 = nnfs.Activation_ReLU()
    dense2 = nnfs.Layer_Dense(64, 10)
    loss_activation = nnfs.Activation_Softmax_Loss_CategoricalCrossentropy()
    optimizer = nnfs.Optimizer_Adam(learning_rate=0.02, decay=1e-5)

    losses = []
    for epoch in range(10 * epochs):
        dense1.forward(X)
        activation1.forward(dense1.output)
        dense2.forward(activation1.output)
        loss = loss_activation.forward(dense2.output, y)

        loss_activation.backward(loss_activation.output, y)
        dense2.backward(loss_activation.dinputs)
        activation1.backward(dense2.dinputs)
        dense1.backward(activation1.dinputs)

        optimizer.pre_update_params()
        optimizer.update_params(dense1)
        optimizer.update_params(dense2)
        optimizer.post_update_params()
        losses.append(float(loss))
        if not epoch % 10:
            print(f"epoch {epoch}: loss {loss:.6f}")

    dense1.forward(X_test)
    activation1.forward(dense1.output)
    dense2.forward(activation1.output)
    loss = loss_activation.forward(dense2.output, y_test)
    accuracy = np.mean(np.argmax(loss_activation.output, axis=1) == y_test)
    print(f"validation, acc: {accuracy:.3f}, loss: {loss:.3f}")
    return losses


def main(accelerate=False, quick=False, network="Model"):
    """Train a network of nnfs on digits, by its Model or by a loop."""
    np.random.seed(0)
    (X, y), (X_test, y_test) = gallery.digits()
    train = train_model if network == "Model" else train_loop
    return train(X, y, X_test, y_test, 3 if quick else 10, accelerate)


if __name__ == "__main__":
    gallery.run(main, NETWORKS)
