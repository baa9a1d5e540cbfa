"""A program in the style of deeplearning.ai's first course: a model of L layers, which finds the digits from 5 on."""

import deeplearning_ai as dnn
import gallery


def load_data():
    """Samples become columns, and labels a row of 0 and 1."""
    (x, t), (x_test, t_test) = gallery.digits()
    return x.T, (t >= 5).reshape(1, -1).astype(int), x_test.T, (t_test >= 5).reshape(1, -1).astype(int)


def L_layer_model(X, Y, layers_dims, learning_rate=0.0075, num_iterations=3000, print_cost=False):
    """Return the parameters after that many steps, and the cost of each."""
    costs = []
    parameters = dnn.initialize_parameters_deep(layers_dims)
    for i in range(num_iterations):
        AL, caches = dnn.L_model_forward(X, parameters)
        cost = dnn.compute_cost(AL, Y)
        grads = dnn.L_model_backward(AL, Y, caches)
        parameters = dnn.update_parameters(parameters, grads, learning_rate)
        costs.append(float(cost))
        if print_cost and i % 10 == 0:
            print(f"epoch {i}: loss {cost:.6f}")
    return parameters, costs


def main(accelerate=False, quick=False):
    """Train the four-layer model of deeplearning.ai's first course on digits; an epoch is one step over all of them."""
    train_x, train_y, test_x, test_y = load_data()
    if accelerate:
        import fastbp

        fastbp.accelerate(dnn)
    parameters, costs = L_layer_model(
        train_x, train_y, [64, 20, 7, 5, 1], learning_rate=0.1, num_iterations=200 if quick else 1000, print_cost=True
    )
    dnn.predict(test_x, test_y, parameters)
    return costs


if __name__ == "__main__":
    gallery.run(main)
